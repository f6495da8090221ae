"""What events cause in polls, on the stand-in for DynamoDB and a real Beanstalkd."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event as Flag
from threading import Thread
from typing import Any
from uuid import UUID

import greenstalk
import pytest

from common.errors import NotFound
from common.fields import new_id
from common.jobs.background import Background
from common.jobs.queue import JobQueue
from polls_service import cascade as module
from polls_service import store as store_module
from polls_service.cascade import Cascade, apply_events
from polls_service.dynamodb import DynamoTable
from polls_service.items import ENDINGS, VOTE, user_list
from polls_service.models import (
    EVENTS_TUBE,
    TIMELINES_TUBE,
    AccountDeleted,
    Event,
    NewPoll,
    Poll,
    PollOver,
    PostDeleted,
)
from polls_service.store import PollsStore
from tests.polling import eventually
from tests.tubes import is_empty, job, take_all

numbers = itertools.count()
NOW = datetime.now(UTC)


class Tubes:
    """Three tubes of one test."""

    def __init__(self, make: Callable[[], JobQueue]) -> None:
        self.own, self.users, self.timelines = make(), make(), make()


@pytest.fixture
def tubes(queues: Callable[[], JobQueue]) -> Tubes:
    return Tubes(queues)


@pytest.fixture
def apply(store: PollsStore, tubes: Tubes, monkeypatch: pytest.MonkeyPatch) -> Callable[[Event], None]:
    """Apply an event, and what comes of it."""
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0)
    cascade = Cascade(store, tubes.own, tubes.users, tubes.timelines)

    def apply(event: Event) -> None:
        cascade.apply(event)
        for payload in take_all(tubes.own):
            apply(module.EVENT.validate_python(payload))

    return apply


@pytest.fixture
def alice() -> str:
    """A user who has nothing yet."""
    return f"alice{next(numbers)}{new_id().hex[-8:]}"


def _poll(store: PollsStore, author: str, expires_in: int | None = None, ago: int = 0) -> Poll:
    new = NewPoll(question="Tea?", options=["Yes", "No"], expires_in=expires_in)
    return store.create(new, author, datetime.now(UTC) - timedelta(seconds=ago))


def _is_there(store: PollsStore, poll: Poll) -> bool:
    return bool(store.polls([poll.id]))


def _post_deleted(poll: Poll, username: str) -> PostDeleted:
    return PostDeleted(kind="post_deleted", post_id=new_id(), poll_id=poll.id, username=username, at=NOW)


def _account_deleted(username: str) -> AccountDeleted:
    return AccountDeleted(kind="account_deleted", username=username, at=NOW)


def _votes(store: PollsStore, poll_id: UUID) -> list[int | None]:
    return [option.votes for option in store.results(poll_id).results]


@pytest.fixture(params=[1, 2])
def times(request: pytest.FixtureRequest) -> int:
    """How often an event comes."""
    times: int = request.param
    return times


def test_the_poll_of_a_deleted_post_goes_with_it(
    store: PollsStore, apply: Callable[[Event], None], alice: str, times: int
) -> None:
    poll, other = _poll(store, alice), _poll(store, alice)
    store.vote(poll.id, "bobby", 0)

    for _ in range(times):
        apply(_post_deleted(poll, alice))

    assert not _is_there(store, poll)
    assert _is_there(store, other)
    assert list(store.voters(poll.id)) == []


def test_another_users_poll_stays(store: PollsStore, apply: Callable[[Event], None], alice: str) -> None:
    poll = _poll(store, alice)

    apply(_post_deleted(poll, "mallory"))

    assert _is_there(store, poll)


def test_a_deleted_users_polls_go(
    store: PollsStore, apply: Callable[[Event], None], alice: str, times: int
) -> None:
    polls = [_poll(store, alice) for _ in range(3)]
    for _ in range(times):
        apply(_account_deleted(alice))

    assert not any(_is_there(store, poll) for poll in polls)


def test_a_deleted_users_votes_stay_counted_without_a_name(
    store: PollsStore, table: DynamoTable, apply: Callable[[Event], None], alice: str, times: int
) -> None:
    poll = _poll(store, "somebody")
    store.vote(poll.id, alice, 0)
    store.vote(poll.id, "bobby", 1)

    for _ in range(times):
        apply(_account_deleted(alice))

    assert _votes(store, poll.id) == [1, 1]
    assert list(store.voters(poll.id)) == ["bobby"]
    assert list(table.keys(user_list(alice), VOTE)) == []


def test_users_are_told_when_nothing_is_left(
    store: PollsStore, apply: Callable[[Event], None], tubes: Tubes, alice: str, times: int
) -> None:
    _poll(store, alice)
    for _ in range(times):
        apply(_account_deleted(alice))

    assert (
        take_all(tubes.users) == [{"kind": "account_cleared", "username": alice, "service": "polls"}] * times
    )


def test_what_was_under_way_is_found_before_users_are_told(
    store: PollsStore, tubes: Tubes, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0)
    cascade = Cascade(store, tubes.own, tubes.users, tubes.timelines)
    cascade.apply(_account_deleted(alice))
    late = _poll(store, alice)
    told_early = take_all(tubes.users)

    for payload in take_all(tubes.own):
        cascade.apply(module.EVENT.validate_python(payload))

    assert (told_early, len(take_all(tubes.users))) == ([], 1)
    assert not _is_there(store, late)


def test_more_than_one_job_may_take_is_done_in_several(
    store: PollsStore,
    tubes: Tubes,
    apply: Callable[[Event], None],
    alice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = itertools.cycle([0.0, 0.0, 99.0])
    poll = _poll(store, alice)
    for number in range(30):
        store.vote(poll.id, f"voter{number}", 0)
    monkeypatch.setattr(store_module.time, "monotonic", lambda: next(turns))
    Cascade(store, tubes.own, tubes.users, tubes.timelines).apply(_account_deleted(alice))
    monkeypatch.undo()
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0)

    [left] = take_all(tubes.own)
    apply(module.EVENT.validate_python(left))

    assert list(store.voters(poll.id)) == []
    assert len(take_all(tubes.users)) == 1


def test_the_end_is_told_to_the_author_first_and_to_each_voter_once(
    store: PollsStore, tubes: Tubes, apply: Callable[[Event], None], alice: str
) -> None:
    voters = [f"voter{number}" for number in range(150)]
    poll = _poll(store, alice)
    for name in [alice, *voters]:
        store.vote(poll.id, name, 0)

    apply(PollOver(poll_id=_ended(store, poll).id, at=NOW))

    told = take_all(tubes.timelines)
    names = [name for one in told for name in one["recipients"]]
    assert names[0] == alice
    assert sorted(names) == sorted([alice, *voters])
    assert max(len(one["recipients"]) for one in told) <= 100
    assert {(one["kind"], one["poll_id"], one["author"]) for one in told} == {
        ("poll_ended", str(poll.id), alice)
    }


def _ended(store: PollsStore, poll: Poll) -> Poll:
    """The poll, as if it had ended by now."""
    item = store._table.get(store_module.items.poll_key(poll.id))
    assert item
    store._table.put(item | {"expires_at": {"S": NOW.isoformat()}})
    return poll


def test_nobody_is_told_of_the_end_of_a_deleted_poll(
    store: PollsStore, table: DynamoTable, tubes: Tubes, apply: Callable[[Event], None], alice: str
) -> None:
    poll = _poll(store, alice, expires_in=300)
    store.delete(poll.id, alice)

    apply(PollOver(poll_id=poll.id, at=NOW))

    assert take_all(tubes.timelines) == []
    assert not [one for one in table.keys(ENDINGS, "2") if str(poll.id) in one["sk"]["S"]]


def _due(store: PollsStore, tubes: Tubes) -> list[str]:
    store.endings.queue_due(tubes.own)
    return [one["poll_id"] for one in take_all(tubes.own)]


def test_a_poll_is_due_once_from_its_end_on(store: PollsStore, tubes: Tubes, alice: str) -> None:
    ended, running = (_poll(store, alice, expires_in=300, ago=ago) for ago in (300, 290))

    first, second = _due(store, tubes), _due(store, tubes)

    assert str(ended.id) in first
    assert str(ended.id) not in second
    assert str(running.id) not in first


def test_a_poll_that_another_process_has_claimed_is_due_again_when_that_one_is_killed(
    store: PollsStore, tubes: Tubes, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = _poll(store, alice, expires_in=300, ago=300)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(tubes.own, "put", die)
    with pytest.raises(Killed):
        store.endings.queue_due(tubes.own)
    monkeypatch.undo()
    meanwhile = _due(store, tubes)
    monkeypatch.setattr("polls_service.endings.datetime", _LaterClock)

    assert str(poll.id) not in meanwhile
    assert str(poll.id) in _due(store, tubes)


class _LaterClock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + timedelta(minutes=1)


@pytest.fixture
def raw_tubes(beanstalkd_port: int) -> Iterator[greenstalk.Client[bytes]]:
    address = ("127.0.0.1", beanstalkd_port)
    with greenstalk.Client(address, encoding=None, use=EVENTS_TUBE, watch=EVENTS_TUBE) as client:
        client.watch(TIMELINES_TUBE)
        yield client


@pytest.fixture
def applying(store: PollsStore, beanstalkd_port: int) -> Iterator[None]:
    """The service's loop, until the test is over."""
    with Background(partial(apply_events, store, [("127.0.0.1", beanstalkd_port)])):
        yield


def test_the_service_applies_events_and_tells_of_ends_and_buries_what_it_cannot_read(
    store: PollsStore, applying: None, raw_tubes: greenstalk.Client[bytes], alice: str
) -> None:
    poll, ended = _poll(store, alice), _poll(store, alice, expires_in=300, ago=300)
    raw_tubes.put(job({"kind": "promoted"}))
    raw_tubes.put(job(_post_deleted(poll, alice).model_dump(mode="json")))

    eventually(lambda: not _is_there(store, poll))
    eventually(lambda: raw_tubes.stats_tube(TIMELINES_TUBE)["current-jobs-ready"])
    told: list[bytes] = []
    while not any(str(ended.id).encode() in one for one in told):
        reserved = raw_tubes.reserve(timeout=120)
        raw_tubes.delete(reserved)
        told.append(reserved.body)

    assert eventually(lambda: is_empty(raw_tubes, EVENTS_TUBE))
    raw_tubes.delete(raw_tubes.peek_buried())


def test_polls_serve_while_beanstalkd_is_away(store: PollsStore, alice: str) -> None:
    stop = Flag()
    thread = Thread(target=apply_events, args=[store, [("127.0.0.1", 1)], stop])
    thread.start()
    try:
        poll = _poll(store, alice)
        assert store.vote(poll.id, "bobby", 1) == [1]
        with pytest.raises(NotFound):
            store.vote(new_id(), "bobby", 1)
    finally:
        stop.set()
        thread.join()
