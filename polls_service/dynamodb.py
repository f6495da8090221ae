"""The table in DynamoDB: made when it is missing, asked again when it was busy."""

import random
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
)
from botocore.exceptions import ConnectionError as ConnectionFailed

from common.circuit_breaker import Breaker, Hung

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# As many as there are threads for requests, and some for those who are not in their way.
CONNECTIONS = 16
CONNECT_SECONDS, READ_SECONDS = 0.5, 0.8
# Until then a new try may begin, so that the last one is over within two seconds.
DEADLINE_SECONDS = 0.9
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.3

USABLE = {"ACTIVE", "UPDATING"}

# What DynamoDB says when the same call may well succeed in a moment; besides every 5xx.
PASSING = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
PASSING_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
CONDITION_FAILED = "ConditionalCheckFailed"

Answer = TypeVar("Answer")
Item = dict[str, Any]


class Busy(Exception):
    """DynamoDB was throttling, or in the way of itself, for all of the time that there was."""


class TableMissing(Exception):
    """The table is not there (yet, or any more)."""


class TableExists(Exception):
    """The table is there already, or being made."""


class Refused(Exception):
    """DynamoDB does not know us, or does not let us."""


class ConditionFailed(Exception):
    """A write's condition does not hold; nothing was written."""


MEANINGS: dict[str, type[Exception]] = {
    "ResourceInUseException": TableExists,
    "ResourceNotFoundException": TableMissing,
    # An operator can mend these while we wait.
    "AccessDeniedException": Refused,
    "ExpiredTokenException": Refused,
    "IncompleteSignatureException": Refused,
    "InvalidSignatureException": Refused,
    "MissingAuthenticationTokenException": Refused,
    "UnrecognizedClientException": Refused,
}


class Table:
    """One table, keyed by `pk` and `sk`. Every call is bounded and may be repeated. Threads may share it."""

    outages = (
        ConnectionFailed,
        HTTPClientError,
        NoCredentialsError,
        CredentialRetrievalError,
        Busy,
        TableMissing,
        Refused,
        Hung,
    )

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._dynamodb = client
        self._breaker = Breaker("DynamoDB")
        self.name = name

    @classmethod
    def connect(cls, url: str, region: str, key_id: str, secret: str, name: str) -> Self:
        """Build the client, without network activity; an empty `url` means AWS and its own credentials."""
        local: dict[str, Any] = {
            "endpoint_url": url,
            "aws_access_key_id": key_id,
            "aws_secret_access_key": secret,
        }
        client: Any = botocore.session.get_session().create_client(
            "dynamodb",
            region_name=region,
            config=Config(
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=CONNECTIONS,
                parameter_validation=False,
                # The environment's proxy, if any, is on the way to AWS, not to a server that is named.
                proxies={} if url else None,
                retries={"total_max_attempts": 1},
                user_agent="microblog-polls",
            ),
            **(local if url else {}),
        )
        return cls(client, name)

    def prepare(self) -> None:
        """Create the table if it is missing, and wait until it can be used."""
        deadline = Deadline()
        while (status := self._status_once_created()) not in USABLE:
            deadline.pause(TableMissing(f"{self.name} is {status}"))

    def _status_once_created(self) -> str:
        try:
            return self.status()
        except TableMissing:
            self._create()
            return self.status()

    def _create(self) -> None:
        create = partial(
            self._dynamodb.create_table,
            TableName=self.name,
            KeySchema=[
                {"AttributeName": "pk", "KeyType": "HASH"},
                {"AttributeName": "sk", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        # Another process may be faster.
        with suppress(TableExists):
            self._call(create)

    def status(self) -> str:
        answer = self._call(partial(self._dynamodb.describe_table, TableName=self.name))
        return answer["Table"]["TableStatus"]

    def close(self) -> None:
        self._dynamodb.close()

    def get(self, pk: str, sk: str) -> Item | None:
        answer = self._call(
            partial(self._dynamodb.get_item, TableName=self.name, Key=key(pk, sk), ConsistentRead=True)
        )
        return answer.get("Item")

    def get_all(self, keys: list[Item]) -> list[Item]:
        """Those of these items that exist, in any order; a hundred at most."""
        found: list[Item] = []
        wanted: Any = {self.name: {"Keys": keys, "ConsistentRead": True}}
        deadline = Deadline()
        while True:
            answer = self._call(partial(self._dynamodb.batch_get_item, RequestItems=wanted))
            found += answer["Responses"].get(self.name, [])
            # What DynamoDB had no time for, and says so.
            wanted = answer["UnprocessedKeys"]
            if not wanted:
                return found
            deadline.pause(Busy("unprocessed keys"))

    def put(self, item: Item) -> None:
        self._call(partial(self._dynamodb.put_item, TableName=self.name, Item=item))

    def write_together(self, writes: Any, token: str) -> None:
        """Do all of these writes or none, once for each token. Raises ConditionFailed."""
        self._call(
            partial(self._dynamodb.transact_write_items, TransactItems=writes, ClientRequestToken=token)
        )

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Repeat what meets a passing trouble, until the deadline."""
        self._breaker.check()
        deadline = Deadline()
        while True:
            try:
                return call()
            except ClientError as exc:
                if _is_passing(exc):
                    deadline.pause(exc)
                elif meaning := _meaning(exc):
                    raise meaning(str(exc)) from exc
                else:
                    raise
            except (ConnectTimeoutError, HTTPClientError) as exc:
                if deadline.is_over():
                    self._breaker.trip()
                    raise
                deadline.pause(exc)


class Deadline:
    """The pauses between tries: longer each time, with full jitter, and over at some point."""

    def __init__(self) -> None:
        self._end = time.monotonic() + DEADLINE_SECONDS
        self._longest = FIRST_PAUSE_SECONDS

    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def pause(self, reason: Exception) -> None:
        if self.is_over():
            raise Busy(str(reason)) from reason
        time.sleep(min(random.uniform(0, self._longest), max(self._end - time.monotonic(), 0)))
        self._longest = min(self._longest * 2, LONGEST_PAUSE_SECONDS)


def key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def _reasons(exc: ClientError) -> set[str]:
    """Why a transaction was cancelled."""
    reasons: list[dict[str, str]] = exc.response.get("CancellationReasons", [])  # type: ignore[assignment]  # not in its type
    return {reason.get("Code", "") for reason in reasons}


def _is_passing(exc: ClientError) -> bool:
    reasons = _reasons(exc)
    return (
        _code(exc) in PASSING
        or exc.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        or (CONDITION_FAILED not in reasons and bool(reasons & PASSING_REASONS))
    )


def _meaning(exc: ClientError) -> type[Exception] | None:
    """What a refusal that does not pass means; None for one that should never have come."""
    if CONDITION_FAILED in _reasons(exc):
        return ConditionFailed
    return MEANINGS.get(_code(exc))
