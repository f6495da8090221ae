"""PostgreSQL through SQLAlchemy: one pool per process, one transaction per change.

SQLAlchemy writes the statements and keeps the connections. A statement that is
a transaction by itself runs on the driver's own cursor: SQLAlchemy's results
would cost more than half of what the driver takes for the whole of it.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import psycopg2
from psycopg2 import extensions
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    ExceptionContext,
    Executable,
    NullPool,
    create_engine,
    event,
    make_url,
    text,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common import memory
from common.circuit_breaker import CircuitBreaker, CircuitOpen
from common.errors import CredentialsRejected
from common.postgres.deadline import CONNECT_SECONDS, ServerTimeout, deadline_in, wait
from common.postgres.schema import MIGRATION_LOCK, SchemaNotReady, create_database, is_up_to_date, transaction
from common.settings import THREADS, PostgresSettings

logger = logging.getLogger(__name__)

STATEMENT_SECONDS = 1.3
# A server that hangs cannot keep the limit above. So the client has one too, for all the waiting of a read or
# a transaction: the caller gets an error within two seconds.
DEADLINE_SECONDS = 1.6
# What the server says of a connection with SQLSTATE 28P01 or 28000, and libpq of one without a password.
# psycopg2 passes on no SQLSTATE before there is a connection, so an English text has to do: in another
# language, the database is only unavailable.
REJECTED = re.compile(
    r"authentication failed for user|no password supplied|role .* does not exist|no pg_hba\.conf entry"
    r"|pg_hba\.conf rejects connection|not permitted to log in"
)


class Database:
    """A database that creates itself and brings its schema up to date."""

    outages = (
        psycopg2.OperationalError, psycopg2.InterfaceError, OperationalError, InterfaceError,
        PoolTimeout, SchemaNotReady, CredentialsRejected, CircuitOpen,
    )  # fmt: skip

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        event.listen(engine, "handle_error", _credentials_rejected, retval=True)
        self._obstacle: Exception | None = SchemaNotReady("the database has not been prepared yet")
        self._breaker = CircuitBreaker("PostgreSQL")
        self._sql = cache(self._compile)

    @classmethod
    def connect(cls, url: URL) -> Self:
        """Build the pool, without network activity."""
        extensions.set_wait_callback(wait)
        return cls(
            create_engine(
                url,
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
                hide_parameters=True,  # an error's text goes to the log
                pool_size=THREADS,
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
        with self.autocommit() as connection, transaction(connection):
            yield connection

    def rows(self, statement: Executable, values: Mapping[str, object]) -> list[Any]:
        """The rows that a statement returns, if any. It is a transaction by itself, without BEGIN or COMMIT.

        Its SQL is kept: build a statement once, and give its values with each call.
        """
        with self.autocommit() as connection:
            driver: Any = connection.connection.driver_connection
            try:
                with driver.cursor() as cursor:
                    cursor.execute(self._sql(statement), values)
                    return cursor.fetchall() if cursor.description else []
            except psycopg2.Error:
                if driver.closed:
                    # Most likely the server has restarted, and the pool's other connections are lost too.
                    connection.invalidate()
                    self._engine.dispose()
                raise

    def _compile(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._engine.dialect))

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection outside of any transaction."""
        if self._obstacle:
            raise self._obstacle.with_traceback(None)
        with self._with_deadline(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _with_deadline(self) -> Iterator[None]:
        """All the waiting inside ends by one deadline. A deadline that passes opens the circuit breaker."""
        self._breaker.raise_if_open()
        try:
            with deadline_in(DEADLINE_SECONDS):
                yield
        except (ServerTimeout, OperationalError) as exc:
            if isinstance(getattr(exc, "orig", exc), ServerTimeout):
                self._breaker.trip()
            raise

    def ping(self) -> None:
        with self._with_deadline(), self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self._engine.dispose()

    def prepare(self, migrations: Path) -> None:
        """Create the database and apply the migrations that are missing; several processes may at once."""
        try:
            self._create_if_missing()
            self._migrate(migrations)
        except CredentialsRejected as exc:
            self._obstacle = exc
            raise
        except DBAPIError as exc:
            # Also for a missing privilege: an operator can grant it while the service waits.
            raise SchemaNotReady(f"cannot prepare the database: {exc}") from exc
        self._obstacle = None

    def _migrate(self, migrations: Path) -> None:
        applied: list[str] = []
        # Named after the service, so that two of them can live in one database.
        version_table = f"{migrations.parent.name}_version"
        with self._engine.connect() as connection, transaction(connection):
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            if not is_up_to_date(connection, migrations, version_table):
                # Only here: Alembic takes a third of a second to load, and memory for good.
                from common.postgres.migrations import upgrade  # noqa: PLC0415

                applied = upgrade(connection, migrations, version_table)
        if applied:
            memory.return_unused()
        for revision in applied:
            logger.info("applied migration %s of %s", revision, migrations.parent.name)

    def _create_if_missing(self) -> None:
        try:
            self.ping()
        except OperationalError:
            # The server is unavailable, or only this database is missing. Every server has `postgres`.
            url = self._engine.url.set(database="postgres")
            server = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            with server.connect() as connection:
                create_database(connection, str(self._engine.url.database))


def _credentials_rejected(context: ExceptionContext) -> CredentialsRejected | None:
    """What SQLAlchemy raises instead when a connection fails for its user or password."""
    reason = str(context.original_exception).strip()
    if context.connection is not None or context.engine is None or not REJECTED.search(reason):
        return None
    url = context.engine.url
    return CredentialsRejected(
        f"PostgreSQL at {url.host or 'localhost'}:{url.port or 5432} rejects user {url.username}: "
        f"correct DB_USER and DB_PASSWORD, or *_DATABASE_URL where it is set ({reason})"
    )


def database_url(settings: PostgresSettings, override: str | None, name: str) -> URL:
    """The URL given as a whole, or else made of its parts."""
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
