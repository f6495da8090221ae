"""PostgreSQL through SQLAlchemy: one pool per process, one transaction per change."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from alembic import command, context
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from common.settings import PostgresSettings

# Three instances of each of two services, and what is left over, fit into PostgreSQL's default of 100.
POOL_SIZE = 8
CONNECT_SECONDS = 2
STATEMENT_SECONDS = 5

# Any number will do, as long as nothing else in the database takes it.
MIGRATION_LOCK = 0x6D6963726F


class NotPrepared(Exception):
    """The server was not there yet, so neither is the schema."""


class Database:
    """A database that creates itself and brings its schema up to date."""

    outages = (OperationalError, InterfaceError, PoolTimeout, NotPrepared)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_prepared = False
        # Single reads need no BEGIN and no ROLLBACK: two round trips less.
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def connect(cls, url: URL) -> Self:
        """Build the pool, without network activity."""
        return cls(
            create_engine(
                url,
                pool_size=POOL_SIZE,
                max_overflow=0,
                pool_timeout=CONNECT_SECONDS,
                pool_pre_ping=False,
                connect_args={
                    "connect_timeout": CONNECT_SECONDS,
                    "options": f"-c statement_timeout={STATEMENT_SECONDS}s -c timezone=UTC",
                },
            )
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Everything inside happens, or nothing does."""
        self._require_prepared()
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for one statement that changes nothing."""
        self._require_prepared()
        with self._reader.connect() as connection:
            yield connection

    def _require_prepared(self) -> None:
        if not self._is_prepared:
            raise NotPrepared("the database has not been prepared yet")

    def ping(self) -> None:
        with self._reader.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        self._engine.dispose()

    def prepare(self, migrations: Path) -> None:
        """Create the database and apply the migrations that are missing; several processes may at once."""
        self._create_if_missing()
        config = Config()
        config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        with self._engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            config.attributes.update(connection=connection, version_table=f"{migrations.parent.name}_version")
            command.upgrade(config, "head")
        self._is_prepared = True

    def _create_if_missing(self) -> None:
        try:
            self.ping()
        except OperationalError:
            # The server is away, or only the database is: the one that every server has tells.
            url = self._engine.url.set(database="postgres")
            server = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            with server.connect() as connection:
                _create(connection, str(self._engine.url.database))


def _create(connection: Connection, name: str) -> None:
    # CREATE DATABASE has no IF NOT EXISTS and fails while another one runs, so one at a time.
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
    exists = text("SELECT 1 FROM pg_database WHERE datname = :name")
    if connection.execute(exists, {"name": name}).first() is None:
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.execute(text(f"CREATE DATABASE {quoted}"))


def run_migrations() -> None:
    """What a service's `migrations/env.py` does."""
    config = context.config
    # Named after the service, so that two of them can live in one database.
    context.configure(config.attributes["connection"], version_table=config.attributes["version_table"])
    with context.begin_transaction():
        context.run_migrations()


def database_url(settings: PostgresSettings, override: str | None, name: str) -> URL:
    """The URL given whole, else the one made of its parts."""
    if override:
        return make_url(override).set(drivername="postgresql+psycopg2")
    return URL.create(
        "postgresql+psycopg2",
        settings.db_user,
        settings.db_password,
        settings.db_host,
        settings.db_port,
        name,
    )
