"""What PostgreSQL says when it responds but cannot serve, on a real PostgreSQL."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy import URL, Column, MetaData, Table, Text, text
from sqlalchemy.exc import DBAPIError

from common.errors import CannotServe
from common.postgres.database import Database
from common.postgres.url import database_url
from common.settings import THREADS, PostgresSettings
from tests.polling import eventually, succeeds
from tests.postgres_operator import end_sessions, operate

TABLES = MetaData()
Table("things", TABLES, Column("name", Text, primary_key=True), info={"rights": ["SELECT", "INSERT"]})
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("things", sa.Column("name", sa.Text, primary_key=True))
"""
NAMES = text("SELECT name FROM things")
ADD = text("INSERT INTO things VALUES (:name)")
BACKEND = text("SELECT pg_backend_pid()")
# One of each kind that the server can have.
LASTING = [
    "08006", "08P01", "25006", "25P02", "25P03", "26000", "28000", "3D000", "3F000", "42501", "42703",
    "42704", "42804", "42809", "42883", "42P01", "42P10", "53000", "53100", "53200", "53300", "53400",
    "57P01", "57P02", "57P03", "57P05", "58000", "58030", "58P01", "F0000", "XX000", "XX001", "XX002",
]  # fmt: skip
PASSING = ["40001", "40003", "40P01", "55006", "55P03", "57014"]
BUGS = ["22003", "22021", "22P02", "23514", "42601", "42702", "P0001", "0A000"]

numbers = count()


def _new_url(port: int) -> URL:
    settings = PostgresSettings(_env_file=None, db_port=port)
    return database_url(settings, None, f"test outages {os.getpid()} {next(numbers)}")


@pytest.fixture
def url(postgres: int) -> URL:
    return _new_url(postgres)


@pytest.fixture
def operator(postgres: int, url: URL) -> Callable[[str], None]:
    """Runs a statement as the operator does, from another database."""
    return lambda statement: operate(postgres, statement.replace("DB", f'"{url.database}"'))


@pytest.fixture(scope="module")
def migrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project") / "things_service" / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text("from common.postgres import migrations\n\nmigrations.run()\n")
    (folder / "versions" / "0001_things.py").write_text(MIGRATION)
    return folder


@pytest.fixture
def connect() -> Iterator[Callable[[URL], Database]]:
    made: list[Database] = []

    def connect(url: URL) -> Database:
        made.append(Database.connect(url, TABLES))
        return made[-1]

    yield connect
    for database in made:
        database.close()


@pytest.fixture
def database(connect: Callable[[URL], Database], url: URL, migrations: Path) -> Database:
    database = connect(url)
    database.prepare(migrations)
    return database


@pytest.fixture(scope="module")
def unchanged(postgres: int, migrations: Path) -> Iterator[Database]:
    """One database for all tests that only have its statements fail."""
    with closing(Database.connect(_new_url(postgres), TABLES)) as database:
        database.prepare(migrations)
        yield database


def _raise(database: Database, sqlstate: str) -> None:
    database.rows(text(f"DO $$ BEGIN RAISE EXCEPTION 'said' USING ERRCODE = '{sqlstate}'; END $$"), {})


def _raise_in_transaction(database: Database, sqlstate: str) -> None:
    with database.transaction() as connection:
        connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'said' USING ERRCODE = '{sqlstate}'; END $$"))


def _backend(database: Database) -> int:
    [(pid,)] = database.rows(BACKEND, {})
    return pid


BY_EITHER_WAY = pytest.mark.parametrize("raise_", [_raise, _raise_in_transaction])


@BY_EITHER_WAY
@pytest.mark.parametrize("sqlstate", LASTING)
def test_what_says_that_the_server_cannot_serve_is_an_outage_with_its_reason(
    unchanged: Database, raise_, sqlstate: str
) -> None:
    with pytest.raises(CannotServe, match=rf": said \({sqlstate}\)$") as caught:
        raise_(unchanged, sqlstate)

    assert isinstance(caught.value, Database.outages)


@BY_EITHER_WAY
@pytest.mark.parametrize("sqlstate", PASSING)
def test_what_passes_by_itself_is_an_outage_that_harms_no_connection(
    unchanged: Database, raise_, sqlstate: str
) -> None:
    before = _backend(unchanged)
    with pytest.raises(Database.outages) as caught:
        raise_(unchanged, sqlstate)

    assert not isinstance(caught.value, CannotServe)
    assert _backend(unchanged) == before


@BY_EITHER_WAY
@pytest.mark.parametrize("sqlstate", BUGS)
def test_a_bug_of_ours_is_no_outage(unchanged: Database, raise_, sqlstate: str) -> None:
    with pytest.raises((psycopg2.Error, DBAPIError)) as caught:
        raise_(unchanged, sqlstate)

    assert not isinstance(caught.value, Database.outages)


@BY_EITHER_WAY
@pytest.mark.parametrize("sqlstate", ["08P01", "25006", "25P02", "26000", "57P01", "XX000"])
def test_a_connection_of_a_server_that_cannot_serve_is_replaced(
    unchanged: Database, raise_, sqlstate: str
) -> None:
    with unchanged.autocommit() as one, unchanged.autocommit() as other:
        before = {each.execute(BACKEND).scalar_one() for each in (one, other)}
    with pytest.raises(CannotServe):
        raise_(unchanged, sqlstate)

    with unchanged.autocommit() as one, unchanged.autocommit() as other:
        assert before.isdisjoint(each.execute(BACKEND).scalar_one() for each in (one, other))


def test_a_connection_that_is_in_use_meanwhile_is_replaced_when_it_is_back(unchanged: Database) -> None:
    with unchanged.autocommit() as busy:
        before = busy.execute(BACKEND).scalar_one()
        with pytest.raises(CannotServe):
            _raise(unchanged, "25006")

    with unchanged.autocommit() as one, unchanged.autocommit() as other:
        assert before not in {each.execute(BACKEND).scalar_one() for each in (one, other)}


def test_connections_that_many_threads_spoil_at_once_meet_nothing_else(unchanged: Database) -> None:
    def spoil(_: int) -> None:
        with pytest.raises(CannotServe):
            _raise(unchanged, "25006")

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(spoil, range(20 * THREADS)))


def test_what_a_client_has_sent_is_not_in_the_reason(database: Database, operator) -> None:
    database.rows(text("ALTER TABLE things RENAME TO others"), {})

    with pytest.raises(CannotServe) as caught:
        database.rows(ADD, {"name": "a secret"})

    assert "secret" not in str(caught.value)


def _says(database: Database, reason: str) -> bool:
    """Whether a ping says so; the first one may find its connection lost."""
    try:
        database.ping()
    except CannotServe as exc:
        return reason in str(exc)
    except Database.outages:
        return False
    return False


def test_a_read_only_server_is_said_so_until_it_is_writable(
    database: Database, postgres: int, url: URL, operator
) -> None:
    operator("ALTER DATABASE DB SET default_transaction_read_only = on")
    end_sessions(postgres, url.database)
    eventually(lambda: _says(database, "is read-only"))
    with pytest.raises(CannotServe, match="read-only"):
        database.rows(ADD, {"name": "one"})
    assert database.rows(NAMES, {}) == []

    operator("ALTER DATABASE DB RESET default_transaction_read_only")

    eventually(lambda: succeeds(database.ping, Database.outages))
    database.rows(ADD, {"name": "one"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("DROP TABLE things", "lacks the tables things"),
        ("DROP TABLE things, things_service_version", "lacks the tables things"),
        ("DROP SCHEMA public CASCADE", "lacks the tables things"),
    ],
)
def test_a_schema_that_is_lost_is_said_so_and_made_again(
    database: Database, migrations: Path, damage: str, reason: str
) -> None:
    database.rows(text(damage), {})
    with pytest.raises(CannotServe, match=reason):
        database.ping()
    with pytest.raises(CannotServe, match="lacks a"):
        database.rows(NAMES, {})

    database.prepare(migrations)

    database.ping()
    assert database.rows(NAMES, {}) == []


def test_a_database_that_is_lost_is_made_again(database: Database, migrations: Path, operator) -> None:
    operator("DROP DATABASE DB WITH (FORCE)")
    eventually(lambda: _says(database, "lacks the database"))

    database.prepare(migrations)

    assert database.rows(NAMES, {}) == []


def test_what_is_left_of_a_schema_keeps_its_rows(database: Database, migrations: Path) -> None:
    database.rows(ADD, {"name": "one"})
    database.rows(text("DROP TABLE things_service_version"), {})

    database.prepare(migrations)

    assert database.rows(NAMES, {}) == [("one",)]


@pytest.fixture
def clerk(database: Database, connect: Callable[[URL], Database], url: URL, migrations: Path) -> Database:
    """The database as a role sees it that may do what the tables' `rights` say, and no more."""
    role = f"clerk{os.getpid()}x{next(numbers)}"
    database.rows(text(f"CREATE ROLE {role} LOGIN PASSWORD 'clerk'"), {})
    database.rows(text(f"GRANT SELECT ON things_service_version TO {role}"), {})
    database.rows(text(f"GRANT SELECT, INSERT ON things TO {role}"), {})
    clerk = connect(url.set(username=role, password="clerk"))
    clerk.prepare(migrations)
    return clerk


def test_a_role_needs_no_more_rights_than_the_tables_name(clerk: Database) -> None:
    clerk.ping()
    clerk.rows(ADD, {"name": "one"})

    assert clerk.rows(NAMES, {}) == [("one",)]


def test_a_right_that_is_revoked_is_named_until_it_is_granted(database: Database, clerk: Database) -> None:
    [(role,)] = clerk.rows(text("SELECT current_user"), {})
    database.rows(text(f"REVOKE INSERT ON things FROM {role}"), {})
    with pytest.raises(CannotServe, match="does not grant INSERT on things"):
        clerk.ping()
    with pytest.raises(CannotServe, match="does not grant a right"):
        clerk.rows(ADD, {"name": "one"})

    database.rows(text(f"GRANT INSERT ON things TO {role}"), {})

    clerk.ping()


@pytest.mark.parametrize(
    ("refusal", "acceptance", "reason"),
    [
        ("ALTER DATABASE DB CONNECTION LIMIT 0", "CONNECTION LIMIT -1", "has too many connections"),
        ("ALTER DATABASE DB ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true", "is starting, stopping"),
    ],
)
def test_a_server_that_refuses_a_connection_says_why(
    database: Database, clerk: Database, operator, refusal: str, acceptance: str, reason: str
) -> None:
    operator(refusal)
    clerk.close()
    eventually(lambda: _says(clerk, reason))

    operator(f"ALTER DATABASE DB {acceptance}")

    eventually(lambda: succeeds(clerk.ping, Database.outages))


def test_a_server_without_the_tls_that_the_url_asks_for_says_so(
    connect: Callable[[URL], Database], url: URL
) -> None:
    with pytest.raises(CannotServe, match="does not offer TLS"):
        connect(url.update_query_dict({"sslmode": "require"})).ping()


def test_a_lock_that_another_holds_is_waited_for_and_no_longer(
    database: Database, connect: Callable[[URL], Database], url: URL
) -> None:
    other = connect(url.update_query_dict({"options": "-c lock_timeout=100"}))
    other._obstacle = None
    with database.transaction() as connection:
        connection.execute(text("LOCK TABLE things"))

        with pytest.raises(Database.outages, match="lock timeout"):
            other.rows(NAMES, {})


def test_a_database_that_cannot_store_every_text_is_warned_of(
    connect: Callable[[URL], Database], url: URL, migrations: Path, operator
) -> None:
    operator("CREATE DATABASE DB ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    database = connect(url)
    database.prepare(migrations)

    assert "LATIN1" in (database.ping() or "")
