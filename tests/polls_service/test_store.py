"""Votes: one a user, exactly counted."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from botocore.exceptions import ConnectionClosedError

from common.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable
from polls_service import store as module
from polls_service.items import SHARDS, poll_key
from polls_service.models import NewPoll, Poll, PollWithVote
from polls_service.store import PollsStore

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


def _votes(store: PollsStore, poll: Poll) -> list[int | None]:
    return [option.votes for option in store.results(poll.id).results]


def _own_votes(store: PollsStore, poll: Poll, username: str) -> list[int]:
    seen = store.poll(poll.id, username)
    assert isinstance(seen, PollWithVote)
    return seen.own_votes


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
    assert all(_own_votes(store, poll, name) == [option] for name, option in counted)


def test_of_many_votes_of_one_user_at_once_one_counts(store: PollsStore, poll: Poll) -> None:
    with ThreadPoolExecutor(50) as pool:
        accepted = list(pool.map(lambda number: _try_to_vote(store, poll, "bob", number % 2), range(50)))

    assert accepted.count(True) == 1
    assert sorted(filter(None, _votes(store, poll))) == [1]


def test_a_vote_is_remembered(store: PollsStore, poll: Poll) -> None:
    store.vote(poll.id, "bob", 1)

    assert (_own_votes(store, poll, "bob"), _own_votes(store, poll, "carol")) == ([1], [])


def test_what_one_process_counts_all_see_at_once(store: PollsStore, another: PollsStore, poll: Poll) -> None:
    store.vote(poll.id, "bob", 1)

    assert _votes(another, poll) == [0, 1]
    assert _own_votes(another, poll, "bob") == [1]


def test_a_vote_in_one_poll_is_none_in_another(store: PollsStore, poll: Poll) -> None:
    other = store.create(NewPoll(question="Milk?", options=["Yes", "No"]), "alice", datetime.now(UTC))
    store.vote(poll.id, "bob", 1)

    assert _own_votes(store, other, "bob") == []
    assert _votes(store, other) == [0, 0]


def test_an_option_that_there_is_not_is_refused(store: PollsStore, poll: Poll) -> None:
    with pytest.raises(BadRequest):
        store.vote(poll.id, "bob", 2)
    assert _own_votes(store, poll, "bob") == []


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


def test_a_vote_reads_no_poll_that_is_known(store: PollsStore, poll: Poll, asked: list[str]) -> None:
    store.vote(poll.id, "bob", 0)
    store.vote(poll.id, "carol", 0)
    store.results(poll.id)

    assert asked == ["GetItem", "TransactWriteItems", "TransactWriteItems", "BatchGetItem"]


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


def _new(store: PollsStore, at: datetime | None = None, **fields: Any) -> Poll:
    poll = NewPoll(question="Tea?", options=["Black", "Green", "White"], **fields)
    return store.create(poll, "alice", at or datetime.now(UTC))


def _items_of(store: PollsStore, poll: Poll) -> list[dict[str, Any]]:
    found = store._table._dynamodb.get_paginator("scan").paginate(TableName="Polls").build_full_result()
    return [item for item in found["Items"] if item["pk"]["S"].startswith(str(poll.id))]


def test_votes_for_several_options_at_once_are_all_counted(store: PollsStore) -> None:
    poll = _new(store, multiple=True)
    choices = [(0,), (0, 2), (2, 1, 0)] * 15
    with ThreadPoolExecutor(45) as pool:
        list(pool.map(lambda vote: store.vote(poll.id, f"voter{vote[0]}", *vote[1]), enumerate(choices)))

    assert _votes(store, poll) == [45, 15, 30]
    assert store.results(poll.id).total_votes == 90
    assert store.poll(poll.id).voters_count == 45


def test_a_vote_for_several_options_is_remembered_in_their_order(store: PollsStore) -> None:
    poll = _new(store, multiple=True)

    assert store.vote(poll.id, "bob", 2, 0) == [0, 2]
    assert _own_votes(store, poll, "bob") == [0, 2]


def test_several_options_are_refused_where_one_vote_is_for_one(store: PollsStore) -> None:
    poll = _new(store)

    with pytest.raises(BadRequest) as caught:
        store.vote(poll.id, "bob", 0, 1)
    assert caught.value.code == "single_choice"


def test_what_version_1_0_adds_up_is_the_votes(store: PollsStore) -> None:
    poll = _new(store, multiple=True)
    store.vote(poll.id, "bob", 0, 1, 2)
    store.vote(poll.id, "carol", 1)

    counters = [item for item in _items_of(store, poll) if item["sk"]["S"] == "count"]
    assert sum(int(value["N"]) for item in counters for value in item.values() if "N" in value) == 4


def test_a_poll_of_version_1_0_is_read_and_voted_in(store: PollsStore) -> None:
    poll = _new(store)
    item = store._table.get(poll_key(poll.id))
    assert item is not None
    old = ("pk", "sk", "question", "options", "created_by", "created_at")
    store._table.put({name: item[name] for name in old})
    store.vote(poll.id, "bob", 1)

    assert store.poll(poll.id) == poll.model_copy(update={"voters_count": 1})


def test_an_ended_poll_takes_no_vote(store: PollsStore) -> None:
    poll = _new(store, datetime.now(UTC) - timedelta(seconds=300), expires_in=300)

    with pytest.raises(Conflict) as caught:
        store.vote(poll.id, "bob", 1)
    assert caught.value.code == "poll_closed"


@pytest.fixture
def late(another: PollsStore) -> PollsStore:
    """Another process's, whose clock is a minute late."""
    another._clock = lambda: datetime.now(UTC) - timedelta(minutes=1)
    return another


@pytest.fixture
def ended(store: PollsStore) -> Poll:
    """A poll that has just ended, by the clock of `store` alone."""
    return _new(store, datetime.now(UTC) - timedelta(seconds=301), expires_in=300, hide_totals=True)


def test_totals_that_were_seen_after_the_end_never_change(
    store: PollsStore, late: PollsStore, ended: Poll
) -> None:
    late.vote(ended.id, "bob", 1)
    seen = store.results(ended.id)

    with pytest.raises(Conflict) as caught:
        late.vote(ended.id, "carol", 1)

    assert caught.value.code == "poll_closed"
    assert seen.total_votes == 1
    assert store.results(ended.id) == seen


def test_a_poll_that_one_process_has_seen_ended_is_closed_for_all(
    store: PollsStore, late: PollsStore, ended: Poll
) -> None:
    before = late.poll(ended.id)
    store.poll(ended.id)
    after = late.poll(ended.id)

    assert (before.closed, before.voters_count) == (False, None)
    assert (after.closed, after.voters_count) == (True, 0)


def test_a_second_vote_after_the_end_is_still_a_second_vote_for_a_late_clock(
    store: PollsStore, late: PollsStore, ended: Poll
) -> None:
    late.vote(ended.id, "bob", 1)
    store.poll(ended.id)

    with pytest.raises(Conflict) as caught:
        late.vote(ended.id, "bob", 1)
    assert caught.value.code == "already_voted"


def test_of_votes_that_race_with_the_end_those_accepted_are_those_counted(
    store: PollsStore, late: PollsStore, ended: Poll
) -> None:
    with ThreadPoolExecutor(20) as pool:
        votes = [pool.submit(_try_to_vote, late, ended, f"voter{number}", 0) for number in range(60)]
        seen = [pool.submit(store.results, ended.id) for _ in range(3)]

    accepted = sum(vote.result() for vote in votes)
    assert {results.result().total_votes for results in seen} == {accepted}


def test_many_ended_polls_are_closed_in_one_batch(store: PollsStore, asked: list[str]) -> None:
    at = datetime.now(UTC) - timedelta(seconds=300)
    polls = [_new(store, at, expires_in=300) for _ in range(12)]
    ids = [poll.id for poll in polls]

    assert all(poll.closed for poll in store.polls(ids))
    asked.clear()
    assert [poll.id for poll in store.polls(ids)] == ids
    assert set(asked) == {"BatchGetItem"}


def test_a_deleted_poll_leaves_its_sealed_counters_alone(store: PollsStore, poll: Poll) -> None:
    for number in range(60):
        store.vote(poll.id, f"voter{number}", 0)

    store.delete(poll.id, "alice")

    items = _items_of(store, poll)
    assert {item["sk"]["S"] for item in items} == {"count"}
    assert all(set(item) == {"pk", "sk", "sealed"} for item in items)


def test_a_deleted_poll_is_gone_for_every_process_at_once(
    store: PollsStore, another: PollsStore, poll: Poll
) -> None:
    another.vote(poll.id, "bob", 1)
    store.delete(poll.id, "alice")

    for call in (
        lambda: another.poll(poll.id, "bob"),
        lambda: another.results(poll.id),
        lambda: another.vote(poll.id, "carol", 1),
        lambda: another.vote(poll.id, "carol", 7),
        lambda: another.delete(poll.id, "alice"),
    ):
        with pytest.raises(NotFound):
            call()
    assert another.polls([poll.id]) == []


def test_votes_that_race_with_the_deletion_leave_nothing(
    store: PollsStore, another: PollsStore, poll: Poll
) -> None:
    def vote(number: int) -> None:
        with suppress(NotFound):
            another.vote(poll.id, f"voter{number}", 0)

    vote(0)
    with ThreadPoolExecutor(20) as pool:
        votes = [pool.submit(vote, number) for number in range(1, 100)]
        store.delete(poll.id, "alice")
    for done in votes:
        done.result()

    assert {item["sk"]["S"] for item in _items_of(store, poll)} == {"count"}


def test_an_interrupted_deletion_does_not_show_and_is_finished_by_repeating_it(
    store: PollsStore, another: PollsStore, poll: Poll, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        store.vote(poll.id, f"voter{number}", 0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "DELETE_SECONDS", -1)
        with pytest.raises(Unavailable) as caught:
            store.delete(poll.id, "alice")
    assert caught.value.code == "deletion_unfinished"
    with pytest.raises(NotFound):
        another.poll(poll.id)
    with pytest.raises(NotFound):
        another.delete(poll.id, "bob")

    another.delete(poll.id, "alice")

    assert {item["sk"]["S"] for item in _items_of(store, poll)} == {"count"}
    with pytest.raises(NotFound):
        another.delete(poll.id, "alice")


def test_another_users_poll_is_not_deleted(store: PollsStore, poll: Poll) -> None:
    with pytest.raises(Forbidden):
        store.delete(poll.id, "bob")
    assert store.poll(poll.id) == poll
