"""Polls and votes in DynamoDB.

A poll is one item. A vote is one item, and one more in the counter of its
shard, written together: no item grows with the number of voters, and no
single one is written by every vote. Poll and shards are partitions of their
own, so that a popular poll spreads over several.
"""

import zlib
from collections import Counter
from datetime import datetime
from functools import lru_cache
from typing import Self
from uuid import UUID, uuid4

from common.fields import new_id
from polls_service import errors
from polls_service.dynamodb import ConditionFailed, DynamoTable, Item, key
from polls_service.models import NewPoll, OptionResult, Poll, Results, Vote

SHARDS = 10
POLL_CACHE_SIZE = 1000


class PollsStore:
    outages = DynamoTable.outages

    def __init__(self, table: DynamoTable) -> None:
        self._table = table
        self.close = table.close
        # A poll never changes, so it may be remembered.
        self._cached_poll = lru_cache(POLL_CACHE_SIZE)(self._read_poll)

    @classmethod
    def connect(cls, url: str, region: str, key_id: str, secret: str, table: str) -> Self:
        return cls(DynamoTable.connect(url, region, key_id, secret, table))

    def prepare(self) -> None:
        self._table.prepare()
        # This may be another table than the one before an outage.
        self._cached_poll.cache_clear()

    def ping(self) -> None:
        self._table.status()

    def create(self, poll: NewPoll, username: str, at: datetime) -> Poll:
        created = Poll(id=new_id(), created_by=username, created_at=at, **poll.model_dump())
        self._table.put(
            key(str(created.id), "poll")
            | {
                "question": {"S": created.question},
                "options": {"L": [{"S": option} for option in created.options]},
                "created_by": {"S": username},
                "created_at": {"S": at.isoformat()},
            }
        )
        return created

    def poll(self, poll_id: UUID) -> Poll:
        """Raises NotFound."""
        return self._cached_poll(poll_id)

    def voted(self, poll_id: UUID, username: str) -> int | None:
        """The option that this user voted for."""
        vote = self._table.get(_shard(poll_id, username), f"vote#{username}")
        return int(vote["option"]["N"]) if vote else None

    def vote(self, poll_id: UUID, username: str, option: int) -> Vote:
        """Raises NotFound, BadRequest for an option that there is not, Conflict for a second vote."""
        if option >= len(self.poll(poll_id).options):
            raise errors.option_out_of_range()
        shard = _shard(poll_id, username)
        put = {
            "TableName": self._table.name,
            "Item": key(shard, f"vote#{username}") | {"option": {"N": str(option)}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        count = {
            "TableName": self._table.name,
            "Key": key(shard, "count"),
            "UpdateExpression": "ADD #option :one",
            "ExpressionAttributeNames": {"#option": f"option{option}"},
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
        try:
            # One token for all tries: a retry after a lost response does not write again.
            self._table.transact([{"Put": put}, {"Update": count}], token=str(uuid4()))
        except ConditionFailed as exc:
            raise errors.already_voted() from exc
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
        votes: Counter[str] = Counter()
        for item in self._table.get_all([key(f"{poll_id}#{shard}", "count") for shard in range(SHARDS)]):
            votes.update({name: int(value["N"]) for name, value in item.items() if "N" in value})
        return votes

    def _read_poll(self, poll_id: UUID) -> Poll:
        item = self._table.get(str(poll_id), "poll")
        if item is None:
            raise errors.poll_not_found()
        return _poll(poll_id, item)


def _poll(poll_id: UUID, item: Item) -> Poll:
    return Poll(
        id=poll_id,
        question=item["question"]["S"],
        options=[option["S"] for option in item["options"]["L"]],
        created_by=item["created_by"]["S"],
        created_at=datetime.fromisoformat(item["created_at"]["S"]),
    )


def _shard(poll_id: UUID, username: str) -> str:
    """Always the same one for a user, so that the vote's own item says whether there is one."""
    return f"{poll_id}#{zlib.crc32(username.encode()) % SHARDS}"
