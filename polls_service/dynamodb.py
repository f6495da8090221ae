"""The table in DynamoDB: created when it is missing, and called again while it is throttled."""

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from uuid import uuid4

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    SSLError,
)

from common.circuit_breaker import CircuitBreaker, CircuitOpen
from common.errors import CannotServe, CredentialsRejected
from common.telemetry import metrics
from common.telemetry.logging import RepeatedWarning

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

logger = logging.getLogger(__name__)

# For each thread of requests as many as it reads over at once, and some for the health check.
MAX_CONNECTIONS = 40
MAX_CALLS_AT_ONCE = 4
# What DynamoDB takes in one call.
MAX_KEYS = 100
CONNECT_SECONDS, READ_SECONDS = 0.5, 0.8
# Until then a new try may begin, so that the last one is over within two seconds.
DEADLINE_SECONDS = 0.9
BASE_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.02, 0.3
# Few enough for one response in good time.
KEYS_PER_PAGE = 1000
ITEMS_PER_PAGE = 500

LOGGED_CHARACTERS = 300

READY_STATUSES = {"ACTIVE", "UPDATING"}

# What DynamoDB says when the same call may well succeed in a moment; besides every 5xx.
RETRYABLE_CODES = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "ReplicatedWriteConflictException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
RETRYABLE_STATUSES = {408, 429}
RETRYABLE_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}
# The request itself is wrong, so it is a bug of ours.
BUGS = {
    "IdempotentParameterMismatchException",
    "ItemCollectionSizeLimitExceeded",
    "ItemCollectionSizeLimitExceededException",
    "SerializationException",
    "ValidationError",
    "ValidationException",
}
CONDITION_FAILED = "ConditionalCheckFailed"

Result = TypeVar("Result")
Item = dict[str, Any]


class Throttled(Exception):
    """DynamoDB was throttling, or transactions were in conflict, until the deadline."""


class DynamoCannotServe(CannotServe):
    """DynamoDB, or what is in its place, responds, but cannot do what is needed now."""


class TableMissing(DynamoCannotServe):
    """The table is not there (yet, or any more)."""


class TableExists(DynamoCannotServe):
    """The table is there already, or being made."""


class AccessDenied(CredentialsRejected):
    """DynamoDB rejects the credentials, or refuses them this action."""


class ConditionFailed(Exception):
    """A write's condition does not hold; nothing was written."""


# An operator can fix these while the service waits.
ACCESS_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "SignatureDoesNotMatch",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
}
CLOCK = "rejects the time of requests: set this machine's clock"
# How InvalidSignatureException names a clock that is wrong.
CLOCK_MESSAGES = ("Signature expired", "Signature not yet current")
STATES = {
    "OptInRequired": "is not enabled for this account",
    "RequestExpired": CLOCK,
    "RequestTimeTooSkewed": CLOCK,
    "SubscriptionRequiredException": "is not enabled for this account",
}
STRANGE = "does not respond as DynamoDB does"


class DynamoTable:
    """One table, keyed by `pk` and `sk`. Every call is bounded and may be repeated. Threads may share it."""

    outages = (ConnectTimeoutError, HTTPClientError, Throttled, DynamoCannotServe, AccessDenied, CircuitOpen)

    def __init__(self, make_client: Callable[[], "DynamoDBClient"], name: str) -> None:
        self._make_client = make_client
        self._warn = RepeatedWarning(logger)
        self._breaker = CircuitBreaker("DynamoDB")
        self.name = name

    @classmethod
    def connect(
        cls, url: str, region: str, key_id: str, secret: str, name: str, session_token: str = ""
    ) -> Self:
        """Make the table, without network activity; an empty `url` means AWS and its own credentials."""
        local: dict[str, Any] = {
            "endpoint_url": url,
            "aws_access_key_id": key_id,
            "aws_secret_access_key": secret,
            "aws_session_token": session_token or None,
        }
        return cls(partial(_make_client, region, local if url else {}), name)

    @cached_property
    def _dynamodb(self) -> "DynamoDBClient":
        # At the first use: what is wrong with AWS's own files and variables, an operator can put right.
        try:
            return self._make_client()
        except (BotoCoreError, ValueError) as exc:
            raise self._outage(exc) from exc

    def ping(self) -> None:
        """Raise unless the table can be used."""
        try:
            status = self.status()
        except Throttled as exc:
            raise DynamoCannotServe("throttles its callers") from exc
        if status not in READY_STATUSES:
            raise DynamoCannotServe(f"its table is {status}")

    def prepare(self) -> bool:
        """Create the table if it is missing, and wait until it can be used; whether it is new."""
        backoff = Backoff()
        status, is_new = self._status_once_created()
        while status not in READY_STATUSES:
            backoff.sleep(TableMissing(f"{self.name} is {status}"))
            status = self.status()
        return is_new

    def _status_once_created(self) -> tuple[str, bool]:
        try:
            return self.status(), False
        except TableMissing:
            is_new = self._create()
            return self.status(), is_new

    def _create(self) -> bool:
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
        try:
            self._call(create)
        except TableExists:
            return False  # another process was faster
        return True

    def status(self) -> str:
        response = self._call(partial(self._dynamodb.describe_table, TableName=self.name))
        return response["Table"].get("TableStatus", "")

    def close(self) -> None:
        if "_dynamodb" in vars(self):
            self._dynamodb.close()

    def get(self, key: Item) -> Item | None:
        response = self._call(
            partial(self._dynamodb.get_item, TableName=self.name, Key=key, ConsistentRead=True)
        )
        return response.get("Item")

    def get_all(self, keys: list[Item]) -> list[Item]:
        """Those of these items that exist, in any order."""
        calls = -(-len(keys) // MAX_KEYS)
        if calls <= 1:
            return self._get_some(keys) if keys else []
        with ThreadPoolExecutor(min(calls, MAX_CALLS_AT_ONCE), "reads") as pool:
            # Each in this request's context.
            parts = [
                pool.submit(copy_context().run, self._get_some, keys[number::calls])
                for number in range(calls)
            ]
            return [item for part in parts for item in part.result()]

    def _get_some(self, keys: list[Item]) -> list[Item]:
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

    def keys(self, pk: str, prefix: str) -> Iterator[Item]:
        """The keys of one partition whose `sk` begins so, in its order. Each page is read when it is due."""
        return self._query(pk, "begins_with(sk, :sk)", prefix)

    def keys_until(self, pk: str, sk: str) -> Iterator[Item]:
        """The keys of one partition up to this `sk`, as `keys` has them."""
        return self._query(pk, "sk <= :sk", sk)

    def _query(self, pk: str, condition: str, sk: str) -> Iterator[Item]:
        query = partial(
            self._dynamodb.query,
            TableName=self.name,
            KeyConditionExpression=f"pk = :pk AND {condition}",
            ExpressionAttributeValues={":pk": {"S": pk}, ":sk": {"S": sk}},
            ProjectionExpression="pk, sk",
            ConsistentRead=True,
            Limit=KEYS_PER_PAGE,
        )
        while True:
            page = self._call(query)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            query = partial(query, ExclusiveStartKey=page["LastEvaluatedKey"])

    def scan(self, after: Item | None, attribute: str) -> tuple[list[Item], Item | None]:
        """Some items, as keys with an attribute, and the key of the last one if there are more."""
        scan = partial(
            self._dynamodb.scan,
            TableName=self.name,
            ProjectionExpression=f"pk, sk, {attribute}",
            ConsistentRead=True,
            Limit=ITEMS_PER_PAGE,
        )
        page = self._call(partial(scan, ExclusiveStartKey=after) if after else scan)
        return page["Items"], page.get("LastEvaluatedKey")

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

    def transact(self, writes: Sequence[dict[str, Item]]) -> None:
        """Do all of these writes of the table or none: each is one of `Put`, `Update`, `ConditionCheck`.

        Raises ConditionFailed.
        """
        named: Any = [
            {verb: {"TableName": self.name, **write} for verb, write in one.items()} for one in writes
        ]
        # One token for all tries: a retry after a lost response does not write again.
        token = str(uuid4())
        self._call(
            partial(self._dynamodb.transact_write_items, TransactItems=named, ClientRequestToken=token)
        )

    def _call(self, call: Callable[[], Result]) -> Result:
        """Retry after transient errors, until the deadline."""
        operation = getattr(call, "func", call).__name__
        with metrics.store_operations.time("aws.dynamodb", operation, errors=self.outages):
            return self._retry(call)

    def _retry(self, call: Callable[[], Result]) -> Result:
        self._breaker.raise_if_open()
        backoff = Backoff()
        while True:
            try:
                return call()
            except ClientError as exc:
                self._raise_unless_retryable(exc, backoff)
                backoff.sleep(exc)
            except (ConnectTimeoutError, HTTPClientError) as exc:
                if backoff.is_over():
                    self._breaker.trip()
                    raise
                backoff.sleep(exc)
            except BotoCoreError as exc:
                raise self._outage(exc) from exc

    def _raise_unless_retryable(self, exc: ClientError, backoff: "Backoff") -> None:
        if _code(exc) in BUGS or _reasons(exc) & BUGS:
            raise exc
        if not _is_retryable(exc) or (_status(exc) >= 500 and backoff.is_over()):
            raise self._error(exc) from exc

    def _error(self, exc: ClientError) -> Exception:
        """What an error that a retry does not help is for us."""
        code, reasons = _code(exc), _reasons(exc)
        if CONDITION_FAILED in reasons:
            return ConditionFailed(str(exc))
        if code == "ResourceInUseException":
            return TableExists("its table is in use")
        if code in ("ResourceNotFoundException", "TableNotFoundException"):
            return TableMissing(f"has no table {self.name}")
        state = _state(exc)
        if not state and (code in ACCESS_DENIED or reasons & ACCESS_DENIED):
            return AccessDenied(str(exc))
        self._warn(f"DynamoDB: {str(exc)[:LOGGED_CHARACTERS]}")
        return DynamoCannotServe(state or STRANGE)

    def _outage(self, exc: Exception) -> DynamoCannotServe:
        """What botocore finds out by itself: of TLS, a proxy, credentials, AWS's files and variables."""
        self._warn(f"DynamoDB: {str(exc)[:LOGGED_CHARACTERS]}")
        match exc:
            case SSLError():
                return DynamoCannotServe("has no TLS, or a certificate that is not trusted")
            case ProxyConnectionError():
                return DynamoCannotServe("cannot be reached through the proxy")
            case EndpointConnectionError():
                return DynamoCannotServe("cannot be reached")
            case _:
                return DynamoCannotServe(f"cannot be called: {type(exc).__name__}")


def _make_client(region: str, local: dict[str, Any]) -> "DynamoDBClient":
    client = botocore.session.get_session().create_client(
        "dynamodb",
        region_name=region,
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=MAX_CONNECTIONS,
            parameter_validation=False,
            # A proxy in the environment is for AWS only, not for a server given by its URL.
            proxies={} if local else None,
            retries={"total_max_attempts": 1},
            user_agent="microblog-polls",
        ),
        **local,
    )
    client.meta.events.register("before-parse.dynamodb", _require_dynamodb)
    return cast("DynamoDBClient", client)


def _require_dynamodb(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Refuse what is not DynamoDB's: botocore would take a proxy's HTML for a success without items."""
    status = response_dict["status_code"]
    media_type = response_dict["headers"].get("Content-Type", "")
    try:
        body = json.loads(response_dict["body"])
    except ValueError:
        body = None
    is_object = isinstance(body, dict)
    if is_object and status >= 300:
        return
    if is_object and media_type.startswith("application/x-amz-json"):
        # It is in botocore's form already, and botocore's own parser takes longer than DynamoDB.
        customized_response_dict.update(body)
        response_dict["body"] = b"{}"
        return
    if status < 500 and status not in RETRYABLE_STATUSES:
        raise DynamoCannotServe(STRANGE)
    # A proxy's words: the status says enough.
    response_dict["body"] = b""


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
        metrics.store_retries.add("aws.dynamodb")
        time.sleep(min(random.uniform(0, self._longest), max(self._end - time.monotonic(), 0)))
        self._longest = min(self._longest * 2, MAX_DELAY_SECONDS)


def key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def _reasons(exc: ClientError) -> set[str]:
    """Why a transaction was cancelled."""
    reasons: list[dict[str, str]] = exc.response.get("CancellationReasons") or []  # type: ignore[assignment]  # not in its type
    return {reason.get("Code", "") for reason in reasons}


def _status(exc: ClientError) -> int:
    return exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _state(exc: ClientError) -> str | None:
    """The state that DynamoDB says to be in; None when it does not say."""
    code = _code(exc)
    if code == "InvalidSignatureException" and any(words in str(exc) for words in CLOCK_MESSAGES):
        return CLOCK
    if code.startswith("KMS"):
        return "cannot use the key that encrypts its table"
    if _status(exc) >= 500:
        return "reports an internal error"
    return STATES.get(code)


def _is_retryable(exc: ClientError) -> bool:
    reasons = _reasons(exc)
    return (
        _code(exc) in RETRYABLE_CODES
        or _status(exc) in RETRYABLE_STATUSES
        or _status(exc) >= 500
        or (CONDITION_FAILED not in reasons and bool(reasons & RETRYABLE_REASONS))
    )
