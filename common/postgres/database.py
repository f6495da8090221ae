"""PostgreSQL through SQLAlchemy: one pool per process, one transaction per change.

SQLAlchemy writes the statements and keeps the connections. A statement that is
a transaction by itself runs on the driver's own cursor: SQLAlchemy's results
would cost more than half of what the driver takes for the whole of it.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import psycopg2
from psycopg2 import extensions
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Executable,
    MetaData,
    NullPool,
    create_engine,
    text,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common import memory
from common.circuit_breaker import CircuitBreaker, CircuitOpen
from common.errors import CredentialsRejected
from common.postgres import schema
from common.postgres.connection import connect
from common.postgres.deadline import CONNECT_SECONDS, ServerTimeout, deadline_in, wait
from common.postgres.outages import PostgresCannotServe, spoils_connections, told_apart
from common.postgres.replica import Replica
from common.postgres.schema import SchemaNotReady, transaction
from common.postgres.url import DRIVER, libpq_parameters
from common.settings import THREADS
from common.staleness import may_be_stale
from common.telemetry import metrics
from common.telemetry.instruments import Readings, Timer

logger = logging.getLogger(__name__)

# OpenTelemetry's name, and a standby's beside it.
SYSTEM = "postgresql"
REPLICA = "postgresql_replica"

STATEMENT_SECONDS = 1.3
# A server that hangs cannot keep the limit above. So the client has one too, for all the waiting of a read or
# a transaction: the caller gets an error within two seconds.
DEADLINE_SECONDS = 1.6
# Of a standby: after it, there is still time to ask the primary.
REPLICA_DEADLINE_SECONDS = 0.4


class Database:
    """A database that creates itself and brings its schema up to date."""

    outages = (
        PostgresCannotServe, psycopg2.OperationalError, psycopg2.InterfaceError, OperationalError,
        InterfaceError, PoolTimeout, SchemaNotReady, CredentialsRejected, CircuitOpen,
    )  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        url: URL,
        tables: MetaData,
        deadline_seconds: float,
        system: str = SYSTEM,
    ) -> None:
        self._engine = engine
        self._system = system
        self._deadline_seconds = deadline_seconds
        self._standby: Database | None = None
        self.replica: Replica | None = None
        self._url = url
        self._tables = tables
        self._obstacle: Exception | None = SchemaNotReady("the database has not been prepared yet")
        self._breaker = CircuitBreaker("PostgreSQL" if system == SYSTEM else "PostgreSQL replica")
        self._sql = cache(self._compile)
        self._generation = 0
        metrics.pool_connections.read_from(self._read_pool)
        metrics.pool_limit.read_from(self._read_limit)

    @classmethod
    def connect(cls, url: URL, tables: MetaData, replica_url: URL | None = None) -> Self:
        """Build the pool, without network activity. `tables` are those that have to be there.

        What may be stale is read from the standby at `replica_url`, if there is one.
        """
        extensions.set_wait_callback(wait)
        database = cls(_pool(url, STATEMENT_SECONDS), url, tables, DEADLINE_SECONDS)
        if replica_url:
            database._add_standby(replica_url)
        return database

    def _add_standby(self, url: URL) -> None:
        standby = Database(
            _pool(url, REPLICA_DEADLINE_SECONDS), url, MetaData(), REPLICA_DEADLINE_SECONDS, REPLICA
        )
        standby._obstacle = None  # the primary's migrations are its own
        self._standby = standby
        self.replica = Replica(self.rows, standby.rows, standby._reconnect, (*self.outages, psycopg2.Error))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Everything inside happens, or nothing does."""
        with self._timed("TRANSACTION"), self.autocommit() as connection, transaction(connection):
            yield connection

    def rows(self, statement: Executable, values: Mapping[str, object]) -> list[Any]:
        """The rows that a statement returns, if any. It is a transaction by itself, without BEGIN or COMMIT.

        Its SQL is kept: build a statement once, and give its values with each call.
        What the replica does not have may be new: then the primary is asked.
        """
        if self.replica and may_be_stale.get():
            if found := self.replica.rows(statement, values):
                return found
            # What the same request reads next must not be older.
            may_be_stale.set(False)
        sql = self._sql(statement)
        with self._timed(sql.split(None, 1)[0].upper()), self.autocommit() as connection:
            driver: Any = connection.connection.driver_connection
            with driver.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []

    def _timed(self, operation: str) -> Timer:
        return metrics.store_operations.time(self._system, operation, errors=self.outages)

    def _compile(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._engine.dialect))

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection outside of any transaction."""
        if self._obstacle:
            raise self._obstacle.with_traceback(None)
        with self._with_deadline(), self._connection() as connection:
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection that goes when it is spoiled, and all that were opened before it with it."""
        with told_apart(self._url), self._take() as connection:
            try:
                self._renew_if_spoiled(connection)
                yield connection
            except (psycopg2.Error, DBAPIError, PostgresCannotServe) as exc:
                if spoils_connections(exc):
                    connection.invalidate()
                    self._reconnect()
                raise

    def _take(self) -> Connection:
        metrics.pool_pending.add(1, self._system)
        try:
            return self._engine.connect()
        finally:
            metrics.pool_pending.add(-1, self._system)

    def _read_pool(self) -> Readings:
        pool: Any = self._engine.pool
        return [((self._system, "used"), pool.checkedout()), ((self._system, "idle"), pool.checkedin())]

    def _read_limit(self) -> Readings:
        return [((self._system,), THREADS)]

    def _reconnect(self) -> None:
        """Make each connection anew before it is used again."""
        self._generation += 1

    def _renew_if_spoiled(self, connection: Connection) -> None:
        """Replace a connection that was opened before another one was spoiled."""
        while connection.info.setdefault("generation", self._generation) != self._generation:
            connection.invalidate()

    @contextmanager
    def _with_deadline(self) -> Iterator[None]:
        """All the waiting inside ends by one deadline. A deadline that passes opens the circuit breaker."""
        self._breaker.raise_if_open()
        try:
            with deadline_in(self._deadline_seconds):
                yield
        except (ServerTimeout, OperationalError) as exc:
            if isinstance(getattr(exc, "orig", exc), ServerTimeout):
                self._breaker.trip()
            raise

    def ping(self) -> str | None:
        with self._with_deadline(), self._connection() as connection:
            warning = schema.check(connection, self._tables)
        return warning or (self.replica.warning if self.replica else None)

    def close(self) -> None:
        self._engine.dispose()
        if self._standby:
            self._standby.close()

    def prepare(self, migrations: Path) -> None:
        """Create the database and apply the migrations that are missing; several processes may at once."""
        try:
            with told_apart(self._url):
                self._create_if_missing()
                self._migrate(migrations)
        except CredentialsRejected as exc:
            self._obstacle = exc
            raise
        except (PostgresCannotServe, psycopg2.Error, DBAPIError) as exc:
            # Also for a missing privilege: an operator can grant it while the service waits.
            raise SchemaNotReady(f"cannot prepare the database: {exc}") from exc
        self._obstacle = None

    def _create_if_missing(self) -> None:
        try:
            with self._with_deadline(), self._connection() as connection:
                connection.execute(text("SELECT 1"))
        except (PostgresCannotServe, OperationalError):
            # The server is unavailable, or only this database is missing.
            schema.create_database(libpq_parameters(self._url))

    def _migrate(self, migrations: Path) -> None:
        applied: list[str] = []
        # Named after the service, so that two of them can live in one database.
        version_table = f"{migrations.parent.name}_version"
        with self._connection() as connection, transaction(connection):
            schema.wait_in_turn(connection)
            schema.restore_version(connection, self._tables, migrations, version_table)
            if not schema.is_up_to_date(connection, migrations, version_table):
                # Only here: Alembic takes a third of a second to load, and memory for good.
                from common.postgres.migrations import upgrade  # noqa: PLC0415

                # On a second connection, because a migration may commit in between.
                with _unlimited(self._url).connect() as migrating:
                    with migrating.begin():
                        schema.create_schema_if_missing(migrating)
                    applied = upgrade(migrating, migrations, version_table)
            made = schema.create_missing_tables(connection, self._tables)
        if applied:
            memory.return_unused()
        for revision in applied:
            logger.info("applied migration %s of %s", revision, migrations.parent.name)
        for name in made:
            logger.warning("created table %s, which was missing: its rows are lost", name)


def _pool(url: URL, statement_seconds: float) -> Engine:
    return create_engine(
        f"{DRIVER}://",
        creator=partial(connect, libpq_parameters(url), statement_seconds),
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        hide_parameters=True,  # an error's text goes to the log
        pool_size=THREADS,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=False,
    )


def _unlimited(url: URL) -> Engine:
    """Connections whose statements take the time they need."""
    creator = partial(connect, libpq_parameters(url), statement_seconds=0)
    return create_engine(f"{DRIVER}://", creator=creator, poolclass=NullPool, hide_parameters=True)
