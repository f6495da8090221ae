"""Votes: one a user, exactly counted."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ConnectionClosedError

from common.errors import BadRequest, Conflict, NotFound
from polls_service import store as module
from polls_service.models import NewPoll, Poll
from polls_service.store import SHARDS, PollsStore

Hook = Callable[[str, Callable[..., Any]], None]

UNKNOWN = UUID("019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e")


@pytest.fixture
def poll(store: PollsStore) -> Poll:
    return store.create(NewPoll(question="Tea?", options=["Yes", "No"]), "alice", datetime.now(UTC))


@pytest.fixture
def another(url: str) -> Iterator[PollsStore]:
    """Another process's."""
    store = PollsStore.connect(url, "us-east-1", "dummy", "dummy", "Polls")
    yield store
    store.close()


@pytest.fixture
def asked(hook: Hook) -> list[str]:
    """What DynamoDB is asked."""
    asked: list[str] = []
    hook("before-call.dynamodb", lambda model, **_: asked.append(model.name))
    return asked


def _votes(store: PollsStore, poll: Poll) -> list[int]:
    return [option.votes for option in store.results(poll.id).results]


def _try_to_vote(store: PollsStore, poll: Poll, username: str, option: int) -> bool:
    try:
        store.vote(poll.id, username, option)
    except Conflict:
        return False
    return True


def test_fifty_who_vote_at_once_are_all_counted(store: PollsStore, poll: Poll) -> None:
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda number: store.vote(poll.id, f"voter{number}", number % 2), range(50)))

    assert _votes(store, poll) == [25, 25]


def test_of_two_votes_of_each_at_once_the_one_that_was_accepted_counts(store: PollsStore, poll: Poll) -> None:
    votes = [(f"voter{number}", option) for number in range(25) for option in (0, 1)]
    with ThreadPoolExecutor(50) as pool:
        accepted = list(pool.map(lambda vote: _try_to_vote(store, poll, *vote), votes))

    counted = [vote for vote, is_accepted in zip(votes, accepted, strict=True) if is_accepted]
    assert sorted(name for name, _ in counted) == sorted(f"voter{number}" for number in range(25))
    assert _votes(store, poll) == [[option for _, option in counted].count(number) for number in (0, 1)]
    assert all(store.voted(poll.id, name) == option for name, option in counted)


def test_of_many_votes_of_one_user_at_once_one_counts(store: PollsStore, poll: Poll) -> None:
    with ThreadPoolExecutor(50) as pool:
        accepted = list(pool.map(lambda number: _try_to_vote(store, poll, "bob", number % 2), range(50)))

    assert accepted.count(True) == 1
    assert sum(_votes(store, poll)) == 1


def test_a_vote_is_remembered(store: PollsStore, poll: Poll) -> None:
    store.vote(poll.id, "bob", 1)

    assert (store.voted(poll.id, "bob"), store.voted(poll.id, "carol")) == (1, None)


def test_what_one_process_counts_all_see_at_once(store: PollsStore, another: PollsStore, poll: Poll) -> None:
    store.vote(poll.id, "bob", 1)

    assert _votes(another, poll) == [0, 1]
    assert another.voted(poll.id, "bob") == 1


def test_a_vote_in_one_poll_is_none_in_another(store: PollsStore, poll: Poll) -> None:
    other = store.create(NewPoll(question="Milk?", options=["Yes", "No"]), "alice", datetime.now(UTC))
    store.vote(poll.id, "bob", 1)

    assert store.voted(other.id, "bob") is None
    assert _votes(store, other) == [0, 0]


def test_an_option_that_there_is_not_is_refused(store: PollsStore, poll: Poll) -> None:
    with pytest.raises(BadRequest):
        store.vote(poll.id, "bob", 2)
    assert store.voted(poll.id, "bob") is None


def test_nobody_votes_in_a_poll_that_there_is_not(store: PollsStore) -> None:
    with pytest.raises(NotFound):
        store.vote(UNKNOWN, "bob", 0)


def test_a_vote_whose_answer_was_lost_counts_once_and_is_no_conflict(
    store: PollsStore, poll: Poll, hook: Hook
) -> None:
    lost = [True]

    def lose(**_: object) -> None:
        if lost:
            lost.pop()
            raise ConnectionClosedError(endpoint_url="")

    hook("response-received.dynamodb.TransactWriteItems", lose)

    store.vote(poll.id, "bob", 1)

    assert _votes(store, poll) == [0, 1]


def test_no_item_grows_with_the_voters_and_none_is_written_by_every_vote(
    store: PollsStore, poll: Poll
) -> None:
    for number in range(50):
        store.vote(poll.id, f"voter{number}", number % 2)

    found = store._table._dynamodb.get_paginator("scan").paginate(TableName="Polls").build_full_result()
    items = [item for item in found["Items"] if item["pk"]["S"].startswith(str(poll.id))]
    counters = [item for item in items if item["sk"]["S"] == "count"]
    assert Counter(item["sk"]["S"].partition("#")[0] for item in items) == {
        "poll": 1,
        "vote": 50,
        "count": len(counters),
    }
    assert SHARDS / 2 < len(counters) <= SHARDS
    assert len({item["pk"]["S"] for item in counters}) == len(counters)
    assert all(set(item) <= {"pk", "sk", "option0", "option1"} for item in counters)


def test_a_poll_is_the_same_when_another_process_reads_it(
    store: PollsStore, another: PollsStore, poll: Poll
) -> None:
    assert another.poll(poll.id) == store.poll(poll.id) == poll


def test_a_poll_that_is_known_is_not_read_again(store: PollsStore, poll: Poll, asked: list[str]) -> None:
    store.poll(poll.id)
    store.vote(poll.id, "bob", 0)
    store.results(poll.id)

    assert asked == ["GetItem", "TransactWriteItems", "BatchGetItem"]


def test_that_there_is_no_such_poll_is_not_remembered(
    store: PollsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = module.new_id()
    with pytest.raises(NotFound):
        store.poll(early)
    monkeypatch.setattr(module, "new_id", lambda: early)

    made = store.create(NewPoll(question="Tea?", options=["Yes", "No"]), "alice", datetime.now(UTC))

    assert store.poll(early) == made


def test_polls_of_a_table_that_was_lost_are_forgotten(store: PollsStore, poll: Poll) -> None:
    store.poll(poll.id)
    store._table._dynamodb.delete_table(TableName="Polls")
    store.prepare()

    with pytest.raises(NotFound):
        store.vote(poll.id, "bob", 0)
