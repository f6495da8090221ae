"""The way of an event from an outbox in PostgreSQL to its tube, on real servers."""

import json
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import count

import greenstalk
import pytest
import server_processes
from pydantic import BaseModel
from sqlalchemy import MetaData

from common.jobs.relay import Relay
from common.postgres.database import Database
from common.postgres.outbox import Outbox, RecordedEvent, outbox_table
from common.postgres.url import database_url
from common.settings import PostgresSettings
from common.telemetry import context
from tests.own_server import Own
from tests.polling import eventually

TUBE = "events.test"

numbers = count()


class Greeted(BaseModel):
    name: str


@pytest.fixture
def database(postgres: int) -> Iterator[Database]:
    settings = PostgresSettings(_env_file=None, db_port=postgres)
    url = database_url(settings, None, f"test_outbox_{os.getpid()}_{next(numbers)}")
    with closing(Database.connect(url, MetaData())) as database:
        database._create_if_missing()
        database._obstacle = None
        yield database


@pytest.fixture
def outbox(database: Database) -> Outbox:
    metadata = MetaData()
    table = outbox_table("test_outbox", metadata)
    with database.transaction() as connection:
        metadata.create_all(connection)
    return Outbox(database, table)


def _record(database: Database, outbox: Outbox, *names: str) -> None:
    with database.transaction() as connection:
        outbox.record(connection, TUBE, *(Greeted(name=name) for name in names))


def _relayed(outbox: Outbox) -> list[str]:
    events: list[RecordedEvent] = []
    outbox.relay(events.append)
    return [event.payload["name"] for event in events]


def test_events_are_relayed_in_their_order_and_once(database: Database, outbox: Outbox) -> None:
    _record(database, outbox, "alice", "bobby")
    _record(database, outbox, "carol")

    assert _relayed(outbox) == ["alice", "bobby", "carol"]
    assert _relayed(outbox) == []


def test_an_event_of_a_change_that_is_rolled_back_is_never_relayed(
    database: Database, outbox: Outbox
) -> None:
    with suppress(RuntimeError), database.transaction() as connection:
        outbox.record(connection, TUBE, Greeted(name="alice"))
        raise RuntimeError

    assert _relayed(outbox) == []


def test_an_event_that_cannot_be_delivered_stays_recorded(database: Database, outbox: Outbox) -> None:
    _record(database, outbox, "alice")

    def fail(event: RecordedEvent) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        outbox.relay(fail)
    assert _relayed(outbox) == ["alice"]


def test_two_relays_never_have_the_same_event_in_hand(database: Database, outbox: Outbox) -> None:
    _record(database, outbox, "alice")
    meanwhile: list[list[str]] = []

    outbox.relay(lambda event: meanwhile.append(_relayed(outbox)))

    assert meanwhile == [[]]


def test_an_event_reaches_its_tube_once_beanstalkd_is_there_under_the_id_of_its_request(
    database: Database, outbox: Outbox, own: Own
) -> None:
    beanstalkd = own(server_processes.beanstalkd)
    context.start("request-1")
    _record(database, outbox, "alice")
    with Relay(outbox, [("127.0.0.1", beanstalkd.port)]):
        beanstalkd.start()
        with greenstalk.Client(("127.0.0.1", beanstalkd.port), encoding=None, watch=TUBE) as client:
            job = json.loads(client.reserve(timeout=120).body)

    assert (job["request_id"], job["payload"]) == ("request-1", {"name": "alice"})
    assert eventually(lambda: not _relayed(outbox))
