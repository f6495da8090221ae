"""Creates the database, and decides whether to migrate it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Connection,
    column,
    select,
    table,
    text,
)  # fmt: skip

# Any number will do, as long as nothing else in the database takes it.
MIGRATION_LOCK = 0x6D6963726F


class SchemaNotReady(Exception):
    """The schema is missing: the server was unavailable, or did not let the service create it."""


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Several statements as one. SQLAlchemy can leave AUTOCOMMIT by itself, but then its errors at the end,
    when the server is gone, are the driver's own."""
    driver: Any = connection.connection.driver_connection
    driver.autocommit = False
    try:
        with connection.begin():
            yield
    finally:
        if not driver.closed:
            driver.autocommit = True


def create_database(connection: Connection, name: str) -> None:
    # CREATE DATABASE has no IF NOT EXISTS, and fails while another one runs: hence the lock.
    connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
    exists = text("SELECT 1 FROM pg_database WHERE datname = :name")
    if connection.execute(exists, {"name": name}).first() is None:
        quoted = connection.dialect.identifier_preparer.quote(name)
        connection.execute(text(f"CREATE DATABASE {quoted}"))


def is_up_to_date(connection: Connection, migrations: Path, version_table: str) -> bool:
    """Whether the schema is that of the last migration."""
    exists = text("SELECT to_regclass(:name) IS NOT NULL")
    if not connection.execute(exists, {"name": version_table}).scalar():
        return False
    found = connection.execute(select(column("version_num")).select_from(table(version_table))).scalar()
    newest = max(path.name for path in (migrations / "versions").glob("*.py"))
    return found == newest.partition("_")[0]
