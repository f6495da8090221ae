"""Polls and votes that no list of their user has: a process of version 1.0 stored them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest

from common.jobs.queue import JobQueue
from polls_service import cascade as cascade_module
from polls_service.cascade import Cascade
from polls_service.items import BACKFILL, POLL, VOTE, listed_key, user_list
from polls_service.list_backfill import ListBackfill
from polls_service.models import EVENT, AccountDeleted, NewPoll, Poll
from polls_service.store import PollsStore

PEOPLE = ["alice", "bobby", "carol"]
GONE = AccountDeleted(kind="account_deleted", username="bobby", at=datetime.now(UTC))


@pytest.fixture(scope="module")
def old_store(url: str) -> Iterator[PollsStore]:
    """Of a table of their own, in which version 1.0 was at work."""
    with closing(PollsStore.connect(url, "us-east-1", "dummy", "dummy", "OldPolls")) as store:
        store.prepare()
        yield store


@pytest.fixture
def polls(old_store: PollsStore, monkeypatch: pytest.MonkeyPatch) -> list[Poll]:
    """Polls of alice in which all have voted: as version 1.0 has left them."""
    monkeypatch.setattr("polls_service.dynamodb.ITEMS_PER_PAGE", 7)
    table = old_store._table
    new = NewPoll(question="Tea?", options=["Yes", "No"])
    polls = [old_store.create(new, "alice", datetime.now(UTC)) for _ in range(3)]
    for poll in polls:
        for name in PEOPLE:
            old_store.vote(poll.id, name, 0)
        table.delete_all([listed_key("alice", POLL, poll.id)])
        table.delete_all([listed_key(name, VOTE, poll.id) for name in PEOPLE])
    table.delete_all([BACKFILL])
    old_store.backfill._is_done = False
    return polls


def _listed(store: PollsStore, name: str, what: str) -> set[str]:
    return {entry["sk"]["S"] for entry in store._table.keys(user_list(name), what)}


def _finish(backfill: ListBackfill) -> int:
    """How many steps it takes."""
    for steps in itertools.count():
        if backfill.is_done():
            return steps
        backfill.step()
    raise AssertionError


def test_they_are_listed_a_page_at_a_time(old_store: PollsStore, polls: list[Poll]) -> None:
    steps = _finish(old_store.backfill)

    ids = {str(poll.id) for poll in polls}
    assert steps > 2
    assert _listed(old_store, "alice", POLL) >= {f"{POLL}{poll_id}" for poll_id in ids}
    for name in PEOPLE:
        assert _listed(old_store, name, VOTE) >= {f"{VOTE}{poll_id}" for poll_id in ids}


def test_another_process_goes_on_where_one_was_killed(old_store: PollsStore, polls: list[Poll]) -> None:
    steps = _finish(ListBackfill(old_store._table))
    old_store._table.delete_all([BACKFILL])
    killed = ListBackfill(old_store._table)
    killed.step()
    killed.step()

    assert _finish(old_store.backfill) == steps - 2


def test_processes_that_are_at_it_at_once_list_all(old_store: PollsStore, polls: list[Poll]) -> None:
    processes = [Thread(target=_finish, args=[ListBackfill(old_store._table)]) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert len(_listed(old_store, "carol", VOTE)) >= len(polls)
    assert old_store.backfill.is_done()


def test_what_is_deleted_during_a_step_gets_no_entry(
    old_store: PollsStore, polls: list[Poll], monkeypatch: pytest.MonkeyPatch
) -> None:
    table, scan = old_store._table, old_store._table.scan

    def scan_and_delete(*given: Any) -> Any:
        page = scan(*given)
        monkeypatch.undo()
        for poll in polls:
            old_store.delete(poll.id, "alice")
        return page

    monkeypatch.setattr(table, "scan", scan_and_delete)
    _finish(old_store.backfill)

    ids = {str(poll.id) for poll in polls}
    for name in PEOPLE:
        assert not {one.partition("#")[2] for one in _listed(old_store, name, VOTE)} & ids


def test_a_deletion_is_confirmed_when_all_is_listed_and_deleted(
    old_store: PollsStore,
    polls: list[Poll],
    queues: Callable[[], JobQueue],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cascade_module, "SETTLE_SECONDS", 0)
    own, users = queues(), queues()
    cascade = Cascade(old_store, own, users, queues())
    own.put(GONE)

    def turn() -> bool:
        """Apply the event, and say whether its end is confirmed."""
        job = own.reserve(timeout=0)
        assert job
        cascade.apply(EVENT.validate_python(job.open()))
        own.delete(job)
        return users.reserve(timeout=0) is not None

    assert [turn() for _ in range(4)] == [False] * 4
    _finish(old_store.backfill)
    assert turn()
    for poll in polls:
        assert sorted(old_store.voters(poll.id)) == ["alice", "carol"]
        assert old_store.results(poll.id).total_votes == 3


def test_a_new_table_has_nothing_to_list(old_store: PollsStore, url: str) -> None:
    with closing(PollsStore.connect(url, "us-east-1", "dummy", "dummy", "NewPolls")) as store:
        store.prepare()

        assert store.backfill.is_done()
