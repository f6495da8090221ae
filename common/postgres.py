"""PostgreSQL through SQLAlchemy: one pool per process, one transaction per change."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from select import POLLIN, POLLOUT, poll
from typing import Any, Self

import psycopg2
from psycopg2 import extensions
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    column,
    create_engine,
    make_url,
    select,
    table,
    text,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common.breaker import Breaker, Hung
from common.settings import PostgresSettings

# Three instances of each of two services, and what is left over, fit into PostgreSQL's default of 100.
POOL_SIZE = 8
STATEMENT_SECONDS = 1.3
# A server that hangs cannot keep the limit above, so there is one on this side too, for all that a read or
# a transaction waits for: who asks learns within two seconds that there is no answer.
DEADLINE_SECONDS = 1.6
CONNECT_SECONDS = 1.0
# Past the deadline too: perhaps it was this process that stood still, and the answer is there.
LAST_CHANCE_SECONDS = 0.1

# Any number will do, as long as nothing else in the database takes it.
MIGRATION_LOCK = 0x6D6963726F

EVENTS = {extensions.POLL_READ: POLLIN, extensions.POLL_WRITE: POLLOUT}

# By the monotonic clock; None is for what takes the time that it needs.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class NotPrepared(Exception):
    """The schema is not there: the server was not, or did not let us make it."""


class NoAnswer(psycopg2.OperationalError):
    """The server has taken too long."""


class Database:
    """A database that creates itself and brings its schema up to date."""

    outages = (OperationalError, InterfaceError, PoolTimeout, NotPrepared, Hung)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_prepared = False
        self._breaker = Breaker("PostgreSQL")

    @classmethod
    def connect(cls, url: URL) -> Self:
        """Build the pool, without network activity."""
        extensions.set_wait_callback(_wait)
        return cls(
            create_engine(
                url,
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                hide_parameters=True,  # an error's text goes to the log
                pool_size=POOL_SIZE,
                max_overflow=0,
                pool_timeout=CONNECT_SECONDS,
                pool_pre_ping=False,
                connect_args={
                    "options": f"-c statement_timeout={STATEMENT_SECONDS * 1000:.0f} -c timezone=UTC"
                },
            )
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Everything inside happens, or nothing does."""
        with self.single() as connection, _transaction(connection):
            yield connection

    @contextmanager
    def single(self) -> Iterator[Connection]:
        """A connection for single statements: each is a transaction by itself, two round trips shorter."""
        self._require_prepared()
        with self._in_time(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """All the waiting inside is over by one deadline; after one that passed, nobody waits for a while."""
        self._breaker.check()
        token = _deadline.set(time.monotonic() + DEADLINE_SECONDS)
        try:
            yield
        except OperationalError as exc:
            if isinstance(exc.orig, NoAnswer):
                self._breaker.trip()
            raise
        finally:
            _deadline.reset(token)

    def _require_prepared(self) -> None:
        if not self._is_prepared:
            raise NotPrepared("the database has not been prepared yet")

    def ping(self) -> None:
        with self._in_time(), self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self._engine.dispose()

    def prepare(self, migrations: Path) -> None:
        """Create the database and apply the migrations that are missing; several processes may at once."""
        try:
            self._create_if_missing()
            self._migrate(migrations)
        except DBAPIError as exc:
            # Also when it is forbidden: an operator can change that while we wait.
            raise NotPrepared(f"cannot prepare the database: {exc}") from exc
        self._is_prepared = True

    def _migrate(self, migrations: Path) -> None:
        # Named after the service, so that two of them can live in one database.
        version_table = f"{migrations.parent.name}_version"
        with self._engine.connect() as connection, _transaction(connection):
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            if not _is_newest(connection, migrations, version_table):
                # Only here: Alembic takes a third of a second to load, and memory for good.
                from common.migrations import upgrade  # noqa: PLC0415

                upgrade(connection, migrations, version_table)

    def _create_if_missing(self) -> None:
        try:
            self.ping()
        except OperationalError:
            # The server is away, or only the database is: the one that every server has tells.
            url = self._engine.url.set(database="postgres")
            server = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            with server.connect() as connection:
                _create(connection, str(self._engine.url.database))


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Several statements as one. SQLAlchemy's own way of leaving AUTOCOMMIT for a while raises what the
    driver raises when the server has gone by the end of it."""
    driver: Any = connection.connection.driver_connection
    driver.autocommit = False
    try:
        with connection.begin():
            yield
    finally:
        if not driver.closed:
            driver.autocommit = True


def _wait(connection: Any) -> None:
    """psycopg2's own waiting has no end when the server hangs; this is its way to replace it."""
    deadline = _deadline.get()
    if connection.status == extensions.STATUS_SETUP:
        deadline = min(deadline or math.inf, time.monotonic() + CONNECT_SECONDS)
    while (state := connection.poll()) != extensions.POLL_OK:
        if state not in EVENTS:
            raise psycopg2.OperationalError("the connection is lost")
        socket = poll()
        socket.register(connection.fileno(), EVENTS[state])
        left = None if deadline is None else max(deadline - time.monotonic(), LAST_CHANCE_SECONDS)
        if not socket.poll(left and left * 1000):
            raise NoAnswer("the server did not answer in time")


def _create(connection: Connection, name: str) -> None:
    # CREATE DATABASE has no IF NOT EXISTS and fails while another one runs, so one at a time.
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
    exists = text("SELECT 1 FROM pg_database WHERE datname = :name")
    if connection.execute(exists, {"name": name}).first() is None:
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.execute(text(f"CREATE DATABASE {quoted}"))


def _is_newest(connection: Connection, migrations: Path, version_table: str) -> bool:
    """Whether the schema is that of the last migration."""
    exists = text("SELECT to_regclass(:name) IS NOT NULL")
    if not connection.execute(exists, {"name": version_table}).scalar():
        return False
    found = connection.execute(select(column("version_num")).select_from(table(version_table))).scalar()
    newest = max(path.name for path in (migrations / "versions").glob("*.py"))
    return found == newest.partition("_")[0]


def database_url(settings: PostgresSettings, override: str | None, name: str) -> URL:
    """The URL given whole, else the one made of its parts."""
    if override:
        url = make_url(override)
        return url.set(drivername="postgresql+psycopg2", database=url.database or name)
    return URL.create(
        "postgresql+psycopg2",
        settings.db_user,
        settings.db_password,
        settings.db_host,
        settings.db_port,
        name,
    )
