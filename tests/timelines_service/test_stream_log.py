"""The log of streams: nothing that commits is lost, or read twice."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text

from common.fields import new_id
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore
from timelines_service.stream_log import LogEvent, LogPage, Position, Snapshot, StreamLog

ADD = "INSERT INTO posts (id, username, text, created_at) VALUES (%s, %s, 'Hello', now())"
AGE = text("UPDATE stream_events SET created_at = created_at - make_interval(secs => :seconds)")


@pytest.fixture
def log(store: TimelinesStore) -> StreamLog:
    return store.stream_log


@pytest.fixture
def connect(settings: TimelinesSettings) -> Callable[[], Any]:
    """A connection past the service, whose transactions take as long as the test likes."""
    url = settings.database.render_as_string(hide_password=False).replace("+psycopg2", "")
    return lambda: closing(psycopg2.connect(url))


def _write(connection: Any, username: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(ADD, [str(new_id()), username])


def _all(log: StreamLog, page: LogPage) -> list[LogEvent]:
    events = list(page.events)
    while page.rest:
        page = log.after(page.rest)
        events += page.events
    return events


def _since(log: StreamLog, position: Position) -> list[str]:
    """The authors of all events after a position, as a stream that is resumed there gets them."""
    found = _all(log, log.after(position)) + _all(log, log.after(position.followed_by(log.now())))
    return [event.username for event in found]


def test_an_event_whose_transaction_commits_late_is_not_lost(
    log: StreamLog, connect: Callable[[], Any]
) -> None:
    start = log.now()
    with connect() as slow, connect() as fast:
        _write(slow, "slow")
        _write(fast, "fast")
        fast.commit()
        page, end = log.since(start.within)
        slow.commit()
    later, _ = log.since(end.within)

    assert [event.username for event in page.events] == ["fast"]
    assert [event.username for event in later.events] == ["slow"]


def test_a_transaction_that_does_not_end_holds_nothing_up(log: StreamLog, connect: Callable[[], Any]) -> None:
    position = log.now()
    with connect() as idle, connect() as busy:
        _write(idle, "idle")
        for number in range(3):
            _write(busy, f"user{number}")
            busy.commit()
            page, position = log.since(position.within)
            assert [event.username for event in page.events] == [f"user{number}"]


def test_a_stream_is_resumed_between_events_of_which_the_first_commits_last(
    log: StreamLog, connect: Callable[[], Any]
) -> None:
    start = log.now()
    with connect() as slow, connect() as fast:
        _write(slow, "slow")
        for username in ("first", "second"):
            _write(fast, username)
        fast.commit()
        page, end = log.since(start.within)
        slow.commit()
    [late] = log.since(end.within)[0].events

    first, second = page.events
    assert _since(log, first.position) == ["second", "slow"]
    assert _since(log, second.position) == ["slow"]
    assert _since(log, late.position) == []


def test_a_transaction_that_is_rolled_back_leaves_no_event(
    log: StreamLog, connect: Callable[[], Any]
) -> None:
    start = log.now()
    with connect() as connection:
        _write(connection, "alice")
        connection.rollback()

    assert log.since(start.within)[0].events == []


def test_pages_follow_each_other(
    log: StreamLog, connect: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timelines_service.stream_log.PAGE", 2)
    start = log.now()
    names = [f"user{number}" for number in range(5)]
    with connect() as connection:
        for name in names:
            _write(connection, name)
        connection.commit()

    assert [event.username for event in _all(log, log.since(start.within)[0])] == names
    assert _since(log, start) == names


def test_a_position_survives_being_written() -> None:
    position = Position(1, Snapshot(5, (3, 4)), Snapshot(9), 7, 8)

    assert Position.parse(str(position)) == position


def test_a_position_of_another_database_is_lost(log: StreamLog) -> None:
    now = log.now()
    ahead = now._replace(within=Snapshot(now.within.next_xid + 1000))

    assert ahead.is_lost(now)
    assert not now.is_lost(now)


def test_old_events_are_deleted(log: StreamLog, store: TimelinesStore, connect: Callable[[], Any]) -> None:
    start = log.now()
    with connect() as connection:
        _write(connection, "old")
        connection.commit()
        log.delete_old()
        store._database.rows(AGE, {"seconds": 15 * 60})
        log.delete_old()
        assert _since(log, start) == ["old"]
        store._database.rows(AGE, {"seconds": 60})
        _write(connection, "new")
        connection.commit()
    log.delete_old()

    assert _since(log, start) == ["new"]
