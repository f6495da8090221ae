"""A transactional outbox: events that a change causes, recorded in the transaction of the change.

A relay puts them into their tubes afterwards, so an event is delivered at least
once, and never for a change that was rolled back
(https://microservices.io/patterns/data/transactional-outbox.html).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    DateTime,
    Identity,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from common.postgres.database import Database
from common.telemetry import context

BATCH = 50


@dataclass(frozen=True)
class RecordedEvent:
    """An event, the tube that it is for, and the request that caused it."""

    tube: str
    payload: dict[str, Any]
    request_id: str
    traceparent: str


def outbox_table(name: str, metadata: MetaData) -> Table:
    """A service's outbox. Named after the service, so that two of them can live in one database."""
    return Table(
        name,
        metadata,
        Column("id", BigInteger, Identity(always=True), primary_key=True),
        Column("tube", Text, nullable=False),
        Column("payload", JSONB, nullable=False),
        Column("request_id", Text, nullable=False),
        Column("traceparent", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        # A lock takes the right to update.
        info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
    )


class Outbox:
    """Threads may share it, and so may instances."""

    outages = Database.outages

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        columns = (table.c.tube, table.c.payload, table.c.request_id, table.c.traceparent)
        self._record = insert(table)
        self._oldest = (
            select(table.c.id, *columns).order_by(table.c.id).limit(BATCH).with_for_update(skip_locked=True)
        )
        self._delete = delete(table).where(table.c.id.in_(bindparam("ids", expanding=True)))

    def record(self, connection: Connection, tube: str, *events: BaseModel) -> None:
        """Record these events in the transaction of their cause."""
        rows = [{"tube": tube, "payload": event.model_dump(mode="json"), **cause()} for event in events]
        if rows:
            connection.execute(self._record, rows)

    def relay(self, deliver: Callable[[RecordedEvent], None]) -> int:
        """Deliver the oldest events that no other relay has in hand; how many these were.

        What `deliver` raises leaves all of them recorded.
        """
        with self._database.transaction() as connection:
            rows = connection.execute(self._oldest).all()
            for _, tube, payload, request_id, traceparent in rows:
                deliver(RecordedEvent(tube, payload, request_id, traceparent))
            if rows:
                connection.execute(self._delete, {"ids": [row.id for row in rows]})
        return len(rows)


def cause() -> dict[str, str]:
    """The columns that say which request caused an event."""
    return {"request_id": context.request_id.get(), "traceparent": context.traceparent.get()}
