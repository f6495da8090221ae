"""Polls and votes in DynamoDB.

A poll is one item. A vote is one item, and one more in the counter of its
shard, written together: no item grows with the number of voters, and no
single one is written by every vote. Poll and shards are partitions of their
own, so that a popular poll spreads over several.
"""

import random
import time
import zlib
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from uuid import UUID, uuid4

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, WaiterError
from botocore.exceptions import ConnectionError as ConnectionFailed

from common.errors import BadRequest, Conflict, NotFound
from common.fields import new_id
from polls_service.models import NewPoll, OptionResult, Poll, Results, Vote

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SHARDS = 10
REMEMBERED_POLLS = 10_000

CONNECTIONS = 16
CONNECT_SECONDS, READ_SECONDS = 1, 2
DEADLINE_SECONDS = 2.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 0.3

# What DynamoDB says when the same call may well succeed in a moment.
PASSING = {
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
PASSING_REASONS = {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"}

Answer = TypeVar("Answer")


class Busy(Exception):
    """DynamoDB was throttling, or in the way of itself, for all of the time that there was."""


class TableMissing(Exception):
    """The table is not there (yet, or any more)."""


class PollsStore:
    outages = (ConnectionFailed, HTTPClientError, Busy, TableMissing)

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._dynamodb = client
        self._table = table
        # A poll's definition never changes, so it may be remembered.
        self._remembered = lru_cache(REMEMBERED_POLLS)(self._read_poll)

    @classmethod
    def connect(cls, url: str, region: str, key_id: str, secret: str, table: str) -> Self:
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
                retries={"total_max_attempts": 1},
                user_agent="microblog-polls",
            ),
            **(local if url else {}),
        )
        return cls(client, table)

    def prepare(self) -> None:
        """Create the table if it is missing and wait until it can be used."""
        try:
            self._dynamodb.create_table(
                TableName=self._table,
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
        except ClientError as exc:
            if _code(exc) != "ResourceInUseException":  # it exists, or is being made elsewhere
                raise
        waiter = self._dynamodb.get_waiter("table_exists")
        try:
            waiter.wait(TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        except WaiterError as exc:
            raise TableMissing(self._table) from exc

    def ping(self) -> None:
        self._call(lambda: self._dynamodb.describe_table(TableName=self._table))

    def close(self) -> None:
        self._dynamodb.close()

    def create(self, poll: NewPoll, username: str, at: datetime) -> Poll:
        created = Poll(id=new_id(), created_by=username, created_at=at, **poll.model_dump())
        item: Any = {
            **_key(str(created.id), "poll"),
            "question": {"S": created.question},
            "options": {"L": [{"S": option} for option in created.options]},
            "created_by": {"S": username},
            "created_at": {"S": at.isoformat()},
        }
        self._call(lambda: self._dynamodb.put_item(TableName=self._table, Item=item))
        return created

    def poll(self, poll_id: UUID) -> Poll:
        """Raises NotFound."""
        return self._remembered(poll_id)

    def voted(self, poll_id: UUID, username: str) -> int | None:
        """The option that this user voted for."""
        vote = self._get(_shard(poll_id, username), f"vote#{username}")
        return int(vote["option"]["N"]) if vote else None

    def vote(self, poll_id: UUID, username: str, option: int) -> Vote:
        """Raises NotFound, BadRequest for an option that there is not, Conflict for a second vote."""
        if option >= len(self.poll(poll_id).options):
            raise BadRequest("option_out_of_range", "There is no such option.")
        shard = _shard(poll_id, username)
        put = {
            "TableName": self._table,
            "Item": _key(shard, f"vote#{username}") | {"option": {"N": str(option)}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        count = {
            "TableName": self._table,
            "Key": _key(shard, "count"),
            "UpdateExpression": "ADD #option :one",
            "ExpressionAttributeNames": {"#option": f"option{option}"},
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
        writes: Any = [{"Put": put}, {"Update": count}]
        # One token for all tries: what was written by a try whose answer was lost is not written again.
        token = str(uuid4())
        try:
            self._call(
                lambda: self._dynamodb.transact_write_items(TransactItems=writes, ClientRequestToken=token)
            )
        except ClientError as exc:
            if "ConditionalCheckFailed" in _reasons(exc):
                raise Conflict("already_voted", "You have voted in this poll already.") from exc
            raise
        return Vote(poll_id=poll_id, option=option)

    def results(self, poll_id: UUID) -> Results:
        """Raises NotFound."""
        poll = self.poll(poll_id)
        votes = self._counts(poll_id)
        counted = [
            OptionResult(option=index, text=text, votes=votes[f"option{index}"])
            for index, text in enumerate(poll.options)
        ]
        return Results(poll_id=poll_id, question=poll.question, total_votes=votes.total(), results=counted)

    def _counts(self, poll_id: UUID) -> Counter[str]:
        wanted: Any = {
            self._table: {
                "Keys": [_key(f"{poll_id}#{shard}", "count") for shard in range(SHARDS)],
                "ConsistentRead": True,
            }
        }
        votes: Counter[str] = Counter()
        deadline = _Deadline()
        while wanted:
            answer = self._call(partial(self._dynamodb.batch_get_item, RequestItems=wanted))
            for item in answer["Responses"].get(self._table, []):
                votes.update({name: int(value["N"]) for name, value in item.items() if "N" in value})
            # What DynamoDB had no time for, and says so.
            wanted = answer["UnprocessedKeys"]
            if wanted:
                deadline.pause(Busy("unprocessed keys"))
        return votes

    def _read_poll(self, poll_id: UUID) -> Poll:
        item = self._get(str(poll_id), "poll")
        if item is None:
            raise NotFound("poll_not_found", "There is no such poll.")
        return Poll(
            id=poll_id,
            question=item["question"]["S"],
            options=[option["S"] for option in item["options"]["L"]],
            created_by=item["created_by"]["S"],
            created_at=datetime.fromisoformat(item["created_at"]["S"]),
        )

    def _get(self, pk: str, sk: str) -> dict[str, Any] | None:
        key: Any = _key(pk, sk)
        answer = self._call(
            lambda: self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        )
        return answer.get("Item")

    def _call(self, call: Callable[[], Answer]) -> Answer:
        """Repeat what meets a passing trouble, until the deadline; every call here may be repeated."""
        deadline = _Deadline()
        while True:
            try:
                return call()
            except ClientError as exc:
                if _code(exc) == "ResourceNotFoundException":
                    raise TableMissing(self._table) from exc
                if not _is_passing(exc):
                    raise
                deadline.pause(exc)
            except HTTPClientError as exc:
                if deadline.is_over():
                    raise
                deadline.pause(exc)


class _Deadline:
    """The pauses between tries: longer each time, with full jitter, and over at some point."""

    def __init__(self) -> None:
        self._end = time.monotonic() + DEADLINE_SECONDS
        self._longest = FIRST_PAUSE_SECONDS

    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def pause(self, reason: Exception) -> None:
        if self.is_over():
            raise Busy(str(reason)) from reason
        time.sleep(random.uniform(0, self._longest))
        self._longest = min(self._longest * 2, LONGEST_PAUSE_SECONDS)


def _key(pk: str, sk: str) -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def _shard(poll_id: UUID, username: str) -> str:
    """Always the same one for a user, so that the vote's own item says whether there is one."""
    return f"{poll_id}#{zlib.crc32(username.encode()) % SHARDS}"


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))


def _reasons(exc: ClientError) -> set[str]:
    """Why a transaction was cancelled."""
    reasons: list[dict[str, str]] = exc.response.get("CancellationReasons", [])  # type: ignore[assignment]
    return {reason.get("Code", "") for reason in reasons}


def _is_passing(exc: ClientError) -> bool:
    reasons = _reasons(exc)
    return _code(exc) in PASSING or (
        "ConditionalCheckFailed" not in reasons and bool(reasons & PASSING_REASONS)
    )
