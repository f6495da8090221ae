"""Creates the database and what is missing in it, decides whether to migrate it, checks its use."""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from psycopg2 import errors, sql
from sqlalchemy import (
    Connection,
    Inspector,
    MetaData,
    Table,
    column,
    inspect,
    select,
    table,
    text,
)  # fmt: skip

from common.postgres.connection import connect
from common.postgres.deadline import deadline_in
from common.postgres.outages import PostgresCannotServe

# Any number will do, as long as nothing else in the database takes it. Version 1.0.0 takes 0x6D6963726F, and
# waits for it in the server: see wait_in_turn.
MIGRATION_LOCK = 0x6D6963726F62
LOCK_POLL_SECONDS = 0.1
# On a slow disk; the server goes on, so that the next attempt finds the database.
CREATE_SECONDS = 30
# Another process may be migrating for longer: then this one asks again.
LOCK_SECONDS = 10

# to_regclass finds what this user may look up without a schema's name.
USABLE = text("""
    WITH needed AS (
        SELECT name, "right"
        FROM unnest(CAST(:names AS text[]), CAST(:rights AS text[])) AS one (name, "right")
    )
    SELECT
        pg_is_in_recovery(),
        current_setting('transaction_read_only') = 'on',
        ARRAY(SELECT DISTINCT name FROM needed WHERE to_regclass(name) IS NULL),
        ARRAY(
            SELECT "right" || ' on ' || name FROM needed
            WHERE NOT has_table_privilege(to_regclass(name), "right")
        ),
        current_setting('server_encoding')
""")

# Views and foreign tables, too: an operator may have put one in a table's place.
VISIBLE = text("""
    SELECT relname FROM pg_class
    WHERE relkind IN ('r', 'p', 'f', 'v', 'm') AND pg_table_is_visible(oid)
""")


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


def create_database(parameters: Mapping[str, str]) -> None:
    """Create the database that these parameters of libpq name. Every server has `postgres`.

    Two processes may do it at once, and one of them fails. A lock would not do: behind a pooler, it stays.
    """
    name = parameters["dbname"]
    with (
        deadline_in(CREATE_SECONDS),
        closing(connect({**parameters, "dbname": "postgres"}, CREATE_SECONDS)) as connection,
    ):
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name])
            if cursor.fetchone() is None:
                with suppress(errors.DuplicateDatabase, errors.UniqueViolation):
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def create_schema_if_missing(connection: Connection) -> None:
    if connection.execute(text("SELECT current_schema()")).scalar() is None:
        connection.execute(text("CREATE SCHEMA IF NOT EXISTS public"))


def create_missing_tables(connection: Connection, tables: MetaData) -> list[str]:
    """Create those that a migration had made and that are gone since; returns their names."""
    there = _names_of_tables(connection)
    missing = [table for table in tables.sorted_tables if table.name not in there]
    tables.create_all(connection, missing, checkfirst=False)
    return [table.name for table in missing]


def wait_in_turn(connection: Connection) -> None:
    """Until the transaction ends, no other process migrates. Raises SchemaNotReady when one takes long."""
    # Not in the server: CREATE INDEX CONCURRENTLY would wait for this statement, and this one for it.
    locked = text("SELECT pg_try_advisory_xact_lock(:lock)")
    until = time.monotonic() + LOCK_SECONDS
    while not connection.execute(locked, {"lock": MIGRATION_LOCK}).scalar():
        if time.monotonic() > until:
            raise SchemaNotReady("another process is migrating the database")
        time.sleep(LOCK_POLL_SECONDS)


def is_up_to_date(connection: Connection, migrations: Path, version_table: str) -> bool:
    """Whether the schema is that of the last migration."""
    if version_table not in _names_of_tables(connection):
        return False
    found = connection.execute(select(column("version_num")).select_from(table(version_table))).scalar()
    return found == _newest(migrations)


def restore_version(connection: Connection, tables: MetaData, migrations: Path, version_table: str) -> None:
    """Note the last migration again where the note is lost: what is left of the tables is as it made them."""
    there = _names_of_tables(connection)
    left = [one for one in tables.sorted_tables if one.name in there]
    if left and version_table not in there and all(_is_current(inspect(connection), one) for one in left):
        connection.execute(text(f"CREATE TABLE {version_table} (version_num varchar(32) PRIMARY KEY)"))
        values = {"newest": _newest(migrations)}
        connection.execute(text(f"INSERT INTO {version_table} VALUES (:newest)"), values)  # noqa: S608  our own name


def _names_of_tables(connection: Connection) -> set[str]:
    """Those that need no schema's name: to ask for each costs a round trip each."""
    return set(connection.scalars(VISIBLE))


def _is_current(inspector: Inspector, wanted: Table) -> bool:
    found = {one["name"] for one in inspector.get_columns(wanted.name)}
    return found >= {one.name for one in wanted.columns}


def _newest(migrations: Path) -> str:
    return max(path.name for path in (migrations / "versions").glob("*.py")).partition("_")[0]


def check(connection: Connection, tables: MetaData) -> str | None:
    """Raise PostgresCannotServe unless these tables can be used. Returns a warning of what harms, if any."""
    needed = [(one.name, right) for one in tables.sorted_tables for right in one.info.get("rights", ())]
    values = {"names": [name for name, _ in needed], "rights": [right for _, right in needed]}
    is_standby, is_read_only, missing, denied, encoding = connection.execute(USABLE, values).one()
    for is_so, reason in (
        (is_standby, "is a standby, and read-only"),
        (is_read_only, "is read-only"),
        (missing, f"lacks the tables {', '.join(missing)}"),
        (denied, f"does not grant {', '.join(denied)}"),
    ):
        if is_so:
            raise PostgresCannotServe(reason)
    return (
        None
        if encoding == "UTF8"
        else f"the encoding is {encoding}, and not UTF8: it cannot store every text"
    )
