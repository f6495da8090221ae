"""The table in DynamoDB: created when it is missing, and called again while it is throttled."""

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

from common.circuit_breaker import CircuitBreaker, CircuitOpen
from common.errors import CredentialsRejected

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# One for each thread of requests, and some for the health check.
MAX_CONNECTIONS = 16
CONNECT_SECONDS, READ_SECONDS = 0.5, 0.8
# Until then a new try may begin, so that the last one is over within two seconds.
DEADLINE_SECONDS = 0.9
BASE_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.02, 0.3

READY_STATUSES = {"ACTIVE", "UPDATING"}

# What DynamoDB says when the same call may well succeed in a moment; besides every 5xx.
RETRYABLE_CODES = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
RETRYABLE_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
CONDITION_FAILED = "ConditionalCheckFailed"

Result = TypeVar("Result")
Item = dict[str, Any]


class Throttled(Exception):
    """DynamoDB was throttling, or transactions were in conflict, until the deadline."""


class TableMissing(Exception):
    """The table is not there (yet, or any more)."""


class TableExists(Exception):
    """The table is there already, or being made."""


class AccessDenied(CredentialsRejected):
    """DynamoDB rejects the credentials, or refuses them this action."""


class ConditionFailed(Exception):
    """A write's condition does not hold; nothing was written."""


ERRORS_BY_CODE: dict[str, type[Exception]] = {
    "ResourceInUseException": TableExists,
    "ResourceNotFoundException": TableMissing,
    # An operator can fix these while the service waits.
    "AccessDeniedException": AccessDenied,
    "ExpiredTokenException": AccessDenied,
    "IncompleteSignatureException": AccessDenied,
    "InvalidSignatureException": AccessDenied,
    "MissingAuthenticationTokenException": AccessDenied,
    "UnrecognizedClientException": AccessDenied,
}


class DynamoTable:
    """One table, keyed by `pk` and `sk`. Every call is bounded and may be repeated. Threads may share it."""

    outages = (
        ConnectionFailed,
        HTTPClientError,
        NoCredentialsError,
        CredentialRetrievalError,
        Throttled,
        TableMissing,
        AccessDenied,
        CircuitOpen,
    )

    def __init__(self, client: "DynamoDBClient", name: str) -> None:
        self._dynamodb = client
        self._breaker = CircuitBreaker("DynamoDB")
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
                max_pool_connections=MAX_CONNECTIONS,
                parameter_validation=False,
                # A proxy in the environment is for AWS only, not for a server given by its URL.
                proxies={} if url else None,
                retries={"total_max_attempts": 1},
                user_agent="microblog-polls",
            ),
            **(local if url else {}),
        )
        return cls(client, name)

    def prepare(self) -> None:
        """Create the table if it is missing, and wait until it can be used."""
        backoff = Backoff()
        while (status := self._status_once_created()) not in READY_STATUSES:
            backoff.sleep(TableMissing(f"{self.name} is {status}"))

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
        response = self._call(partial(self._dynamodb.describe_table, TableName=self.name))
        return response["Table"].get("TableStatus", "")

    def close(self) -> None:
        self._dynamodb.close()

    def get(self, pk: str, sk: str) -> Item | None:
        response = self._call(
            partial(self._dynamodb.get_item, TableName=self.name, Key=key(pk, sk), ConsistentRead=True)
        )
        return response.get("Item")

    def get_all(self, keys: list[Item]) -> list[Item]:
        """Those of these items that exist, in any order; a hundred at most."""
        found: list[Item] = []
        wanted: Any = {self.name: {"Keys": keys, "ConsistentRead": True}}
        backoff = Backoff()
        while True:
            response = self._call(partial(self._dynamodb.batch_get_item, RequestItems=wanted))
            found += response["Responses"].get(self.name, [])
            # What DynamoDB did not process this time.
            wanted = response["UnprocessedKeys"]
            if not wanted:
                return found
            backoff.sleep(Throttled("unprocessed keys"))

    def put(self, item: Item) -> None:
        self._call(partial(self._dynamodb.put_item, TableName=self.name, Item=item))

    def query(self, pk: str, prefix: str, limit: int, after: str | None = None) -> list[Item]:
        """The keys of small items of one partition whose `sk` begins so, in its order, from `after` on."""
        start: Any = {"ExclusiveStartKey": key(pk, after)} if after else {}
        response = self._call(
            partial(
                self._dynamodb.query,
                TableName=self.name,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
                ExpressionAttributeValues={":pk": {"S": pk}, ":prefix": {"S": prefix}},
                ProjectionExpression="pk, sk",
                ConsistentRead=True,
                Limit=limit,
                **start,
            )
        )
        return response["Items"]

    def delete_all(self, keys: list[Item]) -> None:
        """Delete these items; 25 at most. Those that do not exist are no error."""
        wanted: Any = {self.name: [{"DeleteRequest": {"Key": one}} for one in keys]}
        backoff = Backoff()
        while wanted:
            wanted = self._call(partial(self._dynamodb.batch_write_item, RequestItems=wanted))[
                "UnprocessedItems"
            ]
            if wanted:
                backoff.sleep(Throttled("unprocessed items"))

    def transact(self, writes: Any, token: str) -> None:
        """Do all of these writes or none, once for each token. Raises ConditionFailed."""
        self._call(
            partial(self._dynamodb.transact_write_items, TransactItems=writes, ClientRequestToken=token)
        )

    def _call(self, call: Callable[[], Result]) -> Result:
        """Retry after transient errors, until the deadline."""
        self._breaker.raise_if_open()
        backoff = Backoff()
        while True:
            try:
                return call()
            except ClientError as exc:
                if _is_retryable(exc):
                    backoff.sleep(exc)
                elif error := _error_for(exc):
                    raise error(str(exc)) from exc
                else:
                    raise
            except (ConnectTimeoutError, HTTPClientError) as exc:
                if backoff.is_over():
                    self._breaker.trip()
                    raise
                backoff.sleep(exc)


class Backoff:
    """The pauses between tries: longer each time, with full jitter, and over at some point."""

    def __init__(self) -> None:
        self._end = time.monotonic() + DEADLINE_SECONDS
        self._longest = BASE_DELAY_SECONDS

    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def sleep(self, reason: Exception) -> None:
        if self.is_over():
            raise Throttled(str(reason)) from reason
        time.sleep(min(random.uniform(0, self._longest), max(self._end - time.monotonic(), 0)))
        self._longest = min(self._longest * 2, MAX_DELAY_SECONDS)


def key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def _reasons(exc: ClientError) -> set[str]:
    """Why a transaction was cancelled."""
    reasons: list[dict[str, str]] = exc.response.get("CancellationReasons", [])  # type: ignore[assignment]  # not in its type
    return {reason.get("Code", "") for reason in reasons}


def _is_retryable(exc: ClientError) -> bool:
    reasons = _reasons(exc)
    return (
        _code(exc) in RETRYABLE_CODES
        or exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
        or (CONDITION_FAILED not in reasons and bool(reasons & RETRYABLE_REASONS))
    )


def _error_for(exc: ClientError) -> type[Exception] | None:
    """Our exception for an error that a retry does not help; None for one that is not expected."""
    if CONDITION_FAILED in _reasons(exc):
        return ConditionFailed
    return ERRORS_BY_CODE.get(_code(exc))
