"""How polls, votes and counters look in DynamoDB.

A poll is one item. A vote is one item, and one more in the counter of its
shard, written together: no item grows with the number of voters, and no
single one is written by every vote. Poll and shards are partitions of their
own, so that a popular poll spreads over several.

A sealed counter takes no more votes. Whoever sees the totals of a poll that
has ended seals its counters first: a vote that was under way then is refused,
so these totals are final, whatever the clocks of other processes say.

Two partitions are lists, whose entries are written with what they list: of a
user's polls and votes, for when the account is deleted; and of polls that are
to end, by that time, until that has been told.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self
from uuid import UUID

from polls_service.dynamodb import Item, key

SHARDS = 10

VOTE, POLL, USER = "vote#", "poll#", "user#"
POLL_SORT_KEY = "poll"
ENDINGS = "endings"
# How far the lists of users have come that version 1.0 did not keep.
BACKFILL: Item = key("backfill", "lists")
SEALED: Item = {"sealed": {"BOOL": True}}
DELETED: Item = {"deleted": {"BOOL": True}}

# A vote for n options adds n - 1 to the first: the voters are the votes without these. Processes of version
# 1.0 take every number of a counter for votes; for them, the second makes up for the first.
SURPLUS, SURPLUS_NEGATED = "surplus", "surplus_negated"


@dataclass(frozen=True)
class StoredPoll:
    """What never changes of a poll."""

    id: UUID
    question: str
    options: Sequence[str]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    multiple: bool
    hide_totals: bool

    def is_over(self, at: datetime) -> bool:
        return self.expires_at is not None and at >= self.expires_at


@dataclass
class Tally:
    """The votes of a poll: its counters, added up."""

    numbers: Counter[str] = field(default_factory=Counter)
    sealed: int = 0

    @classmethod
    def of(cls, counters: Sequence[Item]) -> Self:
        tally = cls()
        for item in counters:
            tally.numbers.update({name: int(value["N"]) for name, value in item.items() if "N" in value})
            tally.sealed += "sealed" in item
        return tally

    @property
    def is_final(self) -> bool:
        return self.sealed == SHARDS

    @property
    def voters(self) -> int:
        return self.numbers.total() - self.numbers[SURPLUS]

    def votes(self, option: int) -> int:
        return self.numbers[f"option{option}"]


def poll_key(poll_id: UUID) -> Item:
    return key(str(poll_id), POLL_SORT_KEY)


def poll_item(poll: StoredPoll) -> Item:
    item = poll_key(poll.id) | {
        "question": {"S": poll.question},
        "options": {"L": [{"S": option} for option in poll.options]},
        "created_by": {"S": poll.created_by},
        "created_at": {"S": poll.created_at.isoformat()},
        "multiple": {"BOOL": poll.multiple},
        "hide_totals": {"BOOL": poll.hide_totals},
    }
    return item | ({"expires_at": {"S": poll.expires_at.isoformat()}} if poll.expires_at else {})


def read_poll(item: Item) -> StoredPoll:
    """Polls of version 1.0 have neither an end nor its settings."""
    return StoredPoll(
        id=UUID(item["pk"]["S"]),
        question=item["question"]["S"],
        options=[option["S"] for option in item["options"]["L"]],
        created_by=item["created_by"]["S"],
        created_at=datetime.fromisoformat(item["created_at"]["S"]),
        expires_at=datetime.fromisoformat(item["expires_at"]["S"]) if "expires_at" in item else None,
        multiple=item.get("multiple", {}).get("BOOL", False),
        hide_totals=item.get("hide_totals", {}).get("BOOL", False),
    )


def listed_key(username: str, what: str, poll_id: UUID) -> Item:
    """The entry of a poll or a vote (POLL, VOTE) in the list of its user."""
    return key(user_list(username), f"{what}{poll_id}")


def user_list(username: str) -> str:
    return f"{USER}{username}"


def owner_entry(item: Item) -> Item | None:
    """The entry that a poll or a vote has in the list of its user; None for other items."""
    pk, sk = item["pk"]["S"], item["sk"]["S"]
    if sk == POLL_SORT_KEY:
        return listed_key(item["created_by"]["S"], POLL, UUID(pk))
    if sk.startswith(VOTE) and not pk.startswith(USER):
        return listed_key(voter(item), VOTE, UUID(pk.partition("#")[0]))
    return None


def listed_poll(entry: Item) -> UUID:
    """The poll of an entry."""
    return UUID(entry["sk"]["S"].partition("#")[2])


def ending_key(poll_id: UUID, at: datetime) -> Item:
    """Sorted by time."""
    return key(ENDINGS, f"{instant(at)}#{poll_id}")


def ending(entry: Item) -> tuple[UUID, datetime]:
    """The poll of an entry, and when it ends."""
    at, _, poll_id = entry["sk"]["S"].partition("#")
    return UUID(poll_id), datetime.fromisoformat(at)


def instant(at: datetime) -> str:
    """A time as a text that sorts as the times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def entries(poll: StoredPoll) -> list[Item]:
    """Where a poll is listed."""
    listed = [listed_key(poll.created_by, POLL, poll.id)]
    return listed + ([ending_key(poll.id, poll.expires_at)] if poll.expires_at else [])


def place(item: Item) -> tuple[str, str]:
    """What tells the item from all others."""
    return item["pk"]["S"], item["sk"]["S"]


def voter(vote: Item) -> str:
    return str(vote["sk"]["S"].removeprefix(VOTE))


def shard_of(poll_id: UUID, username: str) -> str:
    """Always the same one for a user, so that the vote's own item says whether there is one."""
    return f"{poll_id}#{zlib.crc32(username.encode()) % SHARDS}"


def counter_keys(poll_id: UUID) -> list[Item]:
    return [key(f"{poll_id}#{shard}", "count") for shard in range(SHARDS)]


def vote_key(poll_id: UUID, username: str) -> Item:
    return key(shard_of(poll_id, username), f"{VOTE}{username}")


def vote_item(poll_id: UUID, username: str, options: Sequence[int]) -> Item:
    """Processes of version 1.0 read `option`."""
    item = vote_key(poll_id, username) | {"option": {"N": str(options[0])}}
    return item | ({"options": {"L": [{"N": str(option)} for option in options]}} if options[1:] else {})


def read_vote(item: Item | None) -> list[int]:
    """The options of a vote; none without one."""
    if item is None:
        return []
    return [int(option["N"]) for option in item.get("options", {}).get("L", [item["option"]])]


def count_update(poll_id: UUID, username: str, options: Sequence[int]) -> Item:
    """Add this vote to the counter of its shard, unless that is sealed."""
    added = {f"option{option}": 1 for option in options}
    if surplus := len(options) - 1:
        added |= {SURPLUS: surplus, SURPLUS_NEGATED: -surplus}
    numbered = list(enumerate(added.items()))
    return {
        "Key": key(shard_of(poll_id, username), "count"),
        "UpdateExpression": "ADD " + ", ".join(f"#{n} :{n}" for n, _ in numbered),
        "ConditionExpression": "attribute_not_exists(sealed)",
        "ExpressionAttributeNames": {f"#{n}": name for n, (name, _) in numbered},
        "ExpressionAttributeValues": {f":{n}": {"N": str(number)} for n, (_, number) in numbered},
    }


def claim_update(entry: Item, now: datetime, until: datetime) -> Item:
    """Claim an entry until then, unless another process has."""
    return {
        "Key": entry,
        "UpdateExpression": "SET claimed_until = :until",
        # The entry may be gone, and must not come back.
        "ConditionExpression": "attribute_exists(pk) "
        "AND (attribute_not_exists(claimed_until) OR claimed_until < :now)",
        "ExpressionAttributeValues": {":now": {"S": instant(now)}, ":until": {"S": instant(until)}},
    }


def backfill_update(pages_read: int, rest: Item | None) -> Item:
    """Note that so many pages are done, and where the next one begins; unless another process has."""
    return {
        "Key": BACKFILL,
        "UpdateExpression": "SET pages_read = :read, " + ("next_key = :rest" if rest else "is_done = :rest"),
        "ConditionExpression": "attribute_not_exists(pk) OR pages_read < :read",
        "ExpressionAttributeValues": {
            ":read": {"N": str(pages_read)},
            ":rest": {"M": rest} if rest else {"BOOL": True},
        },
    }


def seal_update(counter: Item) -> Item:
    return {
        "Key": counter,
        "UpdateExpression": "SET sealed = :sealed",
        "ExpressionAttributeValues": {":sealed": SEALED["sealed"]},
    }
