"""Polls and votes in DynamoDB; `items` says how they look there."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

from common.errors import NotFound, Problem
from common.fields import new_id
from common.telemetry import metrics
from polls_service import errors, items
from polls_service.dynamodb import ConditionFailed, DynamoTable, Item
from polls_service.endings import Endings
from polls_service.items import StoredPoll, Tally, place
from polls_service.list_backfill import ListBackfill
from polls_service.models import NewPoll, OptionResult, Poll, PollWithVote, Results

POLL_CACHE_SIZE = 1000
# What DynamoDB takes in one call: writes of a transaction, and items to delete.
MAX_ITEMS, MAX_DELETES = 100, 25
# A request or a job that has more to delete than it can in this time is to be repeated.
DELETE_SECONDS = 2.0

Value = TypeVar("Value")


class _Found(NamedTuple):
    """A poll as it is now."""

    poll: StoredPoll
    tally: Tally
    own_votes: list[int]
    closed: bool

    @property
    def is_hidden(self) -> bool:
        return self.poll.hide_totals and not self.closed


class PollsStore:
    outages = DynamoTable.outages

    def __init__(self, table: DynamoTable) -> None:
        self._table = table
        self.endings = Endings(table)
        self.backfill = ListBackfill(table)
        self._clock: Callable[[], datetime] = partial(datetime.now, UTC)
        self.close = table.close
        # For votes: what is stored of a poll never changes, though it may be deleted.
        self._cached_poll = lru_cache(POLL_CACHE_SIZE)(self._read_poll)

    @classmethod
    def connect(
        cls, url: str, region: str, key_id: str, secret: str, table: str, session_token: str = ""
    ) -> Self:
        return cls(DynamoTable.connect(url, region, key_id, secret, table, session_token))

    def prepare(self) -> None:
        if self._table.prepare():
            self.backfill.skip()
        # This may be another table than the one before an outage.
        self._cached_poll.cache_clear()

    def ping(self) -> None:
        self._table.ping()

    def create(self, poll: NewPoll, username: str, at: datetime) -> Poll:
        created = StoredPoll(
            id=new_id(),
            created_by=username,
            created_at=at,
            expires_at=at + timedelta(seconds=poll.expires_in) if poll.expires_in else None,
            **poll.model_dump(exclude={"expires_in"}),
        )
        self._put_all(items.poll_item(created), *items.entries(created))
        return _poll(_Found(created, Tally(), [], closed=False))

    def poll(self, poll_id: UUID, username: str | None = None) -> Poll:
        """With a username, a PollWithVote. Raises NotFound."""
        found = self.polls([poll_id], username)
        if not found:
            raise errors.poll_not_found()
        return found[0]

    def polls(self, poll_ids: Sequence[UUID], username: str | None = None) -> list[Poll]:
        """Those of these polls that exist, in this order; with a username, each is a PollWithVote."""
        show = _poll if username is None else _poll_with_vote
        return [show(found) for found in self._find(poll_ids, username)]

    def results(self, poll_id: UUID) -> Results:
        """Raises NotFound."""
        for found in self._find([poll_id]):
            return _results(found)
        raise errors.poll_not_found()

    def vote(self, poll_id: UUID, username: str, *options: int) -> list[int]:
        """Vote for these options, and return them in their order.

        Raises NotFound, BadRequest for options that this poll does not have or take, Conflict for a second
        vote and after the end.
        """
        chosen = sorted(options)
        refusal = self._refusal(self._cached_poll(poll_id), chosen)
        if not refusal and self._count(poll_id, username, chosen):
            metrics.votes.add()
            return chosen
        # The poll that is remembered may be deleted by now.
        found = self._read([poll_id], username).get(poll_id)
        if not found:
            raise errors.poll_not_found()
        if refusal:
            raise refusal
        raise errors.already_voted() if found.own_votes else errors.poll_closed()

    def delete(self, poll_id: UUID, username: str) -> None:
        """Delete a poll and its votes. It is gone at once; what interrupts the rest, a repetition finishes.

        Its sealed counters stay, for the votes that are under way. Raises NotFound, Forbidden for another's
        poll, Unavailable when there are more votes than can be deleted in one call.
        """
        item = self._table.get(items.poll_key(poll_id))
        if item is None:
            raise errors.poll_not_found()
        if item["created_by"]["S"] != username:
            raise errors.poll_not_found() if "deleted" in item else errors.not_yours()
        self._table.put(item | items.DELETED)
        for counter in items.counter_keys(poll_id):
            self._table.put(counter | items.SEALED)
        self._delete_in_time(
            (items.listed_key(items.voter(vote), items.VOTE, poll_id), vote) for vote in self._votes(poll_id)
        )
        self._table.delete_all([items.poll_key(poll_id)])
        # Until then, the deletion of the account finds it.
        self._table.delete_all(items.entries(items.read_poll(item)))

    def delete_polls_of(self, username: str) -> None:
        """Delete all polls of a user. Raises Unavailable when there are more than one call can delete."""
        end = time.monotonic() + DELETE_SECONDS
        for entry in self._table.keys(items.user_list(username), items.POLL):
            if time.monotonic() > end:
                raise errors.deletion_unfinished()
            try:
                self.delete(items.listed_poll(entry), username)
            except NotFound:
                # An interrupted deletion has left its entry.
                self._table.delete_all([entry])

    def forget_votes_of(self, username: str) -> None:
        """Delete what says that these votes are the user's: they stay counted. Raises as delete_polls_of."""
        listed = self._table.keys(items.user_list(username), items.VOTE)
        self._delete_in_time((items.vote_key(items.listed_poll(entry), username), entry) for entry in listed)

    def voters(self, poll_id: UUID) -> Iterator[str]:
        return map(items.voter, self._votes(poll_id))

    def _votes(self, poll_id: UUID) -> Iterator[Item]:
        """The keys of all votes of a poll. Each page is read when it is due."""
        for counter in items.counter_keys(poll_id):
            yield from self._table.keys(counter["pk"]["S"], items.VOTE)

    def _delete_in_time(self, pairs: Iterable[tuple[Item, Item]]) -> None:
        """Delete these pairs. The second one goes last: a repetition finds both by it."""
        end = time.monotonic() + DELETE_SECONDS
        for some in _chunks(pairs, MAX_DELETES):
            if time.monotonic() > end:
                raise errors.deletion_unfinished()
            for keys in zip(*some, strict=True):
                self._table.delete_all(list(keys))

    def _put_all(self, *new: Item) -> None:
        self._table.transact([{"Put": {"Item": item}} for item in new])

    def _refusal(self, poll: StoredPoll, options: list[int]) -> Problem | None:
        if poll.is_over(self._clock()):
            return errors.poll_closed()
        if options[-1] >= len(poll.options):
            return errors.option_out_of_range()
        if len(options) > 1 and not poll.multiple:
            return errors.single_choice()
        return None

    def _count(self, poll_id: UUID, username: str, options: list[int]) -> bool:
        """Whether the vote is counted: not if there is one already, and not if the counter is sealed."""
        put = {
            "Item": items.vote_item(poll_id, username, options),
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        listed = {"Item": items.listed_key(username, items.VOTE, poll_id)}
        count = items.count_update(poll_id, username, options)
        try:
            self._table.transact([{"Put": put}, {"Put": listed}, {"Update": count}])
        except ConditionFailed:
            return False
        return True

    def _find(self, poll_ids: Sequence[UUID], username: str | None = None) -> list[_Found]:
        found = self._read(poll_ids, username)
        ended = [one.poll.id for one in found.values() if one.closed and not one.tally.is_final]
        if ended:
            self._seal(ended)
            found |= self._read(ended, username)
        return [found[poll_id] for poll_id in poll_ids if poll_id in found]

    def _read(self, poll_ids: Sequence[UUID], username: str | None) -> dict[UUID, _Found]:
        """Those of these polls that exist."""
        keys: list[Item] = []
        for poll_id in poll_ids:
            keys += [items.poll_key(poll_id), *items.counter_keys(poll_id)]
            keys += [items.vote_key(poll_id, username)] if username else []
        read = {place(item): item for item in self._table.get_all(keys)}
        found = {}
        for poll_id in poll_ids:
            item = read.get(place(items.poll_key(poll_id)))
            if item and "deleted" not in item:
                counters = map(place, items.counter_keys(poll_id))
                tally = Tally.of([read[one] for one in counters if one in read])
                vote = read.get(place(items.vote_key(poll_id, username))) if username else None
                found[poll_id] = self._found(items.read_poll(item), tally, items.read_vote(vote))
        return found

    def _found(self, poll: StoredPoll, tally: Tally, own_votes: list[int]) -> _Found:
        # Sealed by a process whose clock is ahead, it is closed for all.
        return _Found(poll, tally, own_votes, tally.is_final or poll.is_over(self._clock()))

    def _seal(self, poll_ids: Sequence[UUID]) -> None:
        counters = [counter for poll_id in poll_ids for counter in items.counter_keys(poll_id)]
        for some in _chunks(counters, MAX_ITEMS):
            self._table.transact([{"Update": items.seal_update(counter)} for counter in some])

    def _read_poll(self, poll_id: UUID) -> StoredPoll:
        item = self._table.get(items.poll_key(poll_id))
        if item is None or "deleted" in item:
            raise errors.poll_not_found()
        return items.read_poll(item)


def _poll(found: _Found) -> Poll:
    return Poll(**_shown(found))


def _poll_with_vote(found: _Found) -> PollWithVote:
    first = found.own_votes[0] if found.own_votes else None
    return PollWithVote(**_shown(found), voted=first, own_votes=found.own_votes)


def _shown(found: _Found) -> dict[str, Any]:
    stored = {name: value for name, value in vars(found.poll).items() if name in Poll.model_fields}
    voters = None if found.is_hidden else found.tally.voters
    return stored | {"closed": found.closed, "voters_count": voters}


def _results(found: _Found) -> Results:
    votes = [found.tally.votes(index) for index in range(len(found.poll.options))]
    return Results(
        poll_id=found.poll.id,
        question=found.poll.question,
        total_votes=None if found.is_hidden else sum(votes),
        results=[
            OptionResult(option=index, text=text, votes=None if found.is_hidden else votes[index])
            for index, text in enumerate(found.poll.options)
        ],
    )


def _chunks(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    left = iter(values)
    while chunk := list(islice(left, size)):
        yield chunk
