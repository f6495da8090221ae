"""PostgreSQL through SQLAlchemy: one pool per process, one transaction per change."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from psycopg2 import extensions
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    create_engine,
    make_url,
    text,
)  # fmt: skip
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common.circuit_breaker import CircuitBreaker, CircuitOpen
from common.postgres.deadline import CONNECT_SECONDS, ServerTimeout, deadline_in, wait
from common.postgres.schema import MIGRATION_LOCK, SchemaNotReady, create_database, is_up_to_date, transaction
from common.settings import THREADS, PostgresSettings

logger = logging.getLogger(__name__)

STATEMENT_SECONDS = 1.3
# A server that hangs cannot keep the limit above, so there is one on this side too, for all that a read or
# a transaction waits for: who asks learns within two seconds that there is no answer.
DEADLINE_SECONDS = 1.6


class Database:
    """A database that creates itself and brings its schema up to date."""

    outages = (OperationalError, InterfaceError, PoolTimeout, SchemaNotReady, CircuitOpen)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_prepared = False
        self._breaker = CircuitBreaker("PostgreSQL")

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

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """A connection for single statements: each is a transaction by itself, two round trips shorter."""
        self._require_prepared()
        with self._with_deadline(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _with_deadline(self) -> Iterator[None]:
        """All the waiting inside is over by one deadline; after one that passed, nobody waits for a while."""
        self._breaker.raise_if_open()
        try:
            with deadline_in(DEADLINE_SECONDS):
                yield
        except OperationalError as exc:
            if isinstance(exc.orig, ServerTimeout):
                self._breaker.trip()
            raise

    def _require_prepared(self) -> None:
        if not self._is_prepared:
            raise SchemaNotReady("the database has not been prepared yet")

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
        except DBAPIError as exc:
            # Also when it is forbidden: an operator can change that while we wait.
            raise SchemaNotReady(f"cannot prepare the database: {exc}") from exc
        self._is_prepared = True

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
        for revision in applied:
            logger.info("applied migration %s of %s", revision, migrations.parent.name)

    def _create_if_missing(self) -> None:
        try:
            self.ping()
        except OperationalError:
            # The server is away, or only the database is: the one that every server has tells.
            url = self._engine.url.set(database="postgres")
            server = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            with server.connect() as connection:
                create_database(connection, str(self._engine.url.database))


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
