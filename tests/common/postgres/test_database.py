"""A database that makes itself, and what becomes of it on bad days, on a real PostgreSQL."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import psycopg2
import pytest
import server_processes
from sqlalchemy import MetaData, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError

from common.errors import CredentialsRejected
from common.postgres import database as module
from common.postgres import deadline
from common.postgres.database import Database
from common.postgres.schema import SchemaNotReady
from common.postgres.url import database_url
from common.settings import PostgresSettings
from tests.hung_server import count_waits, hung_server
from tests.polling import PATIENCE_SECONDS, eventually

ROOT = Path(__file__).parents[3]

ENV = "from common.postgres import migrations\n\nmigrations.run()\n"
REVISION = """
from alembic import op
import sqlalchemy as sa

revision = "{number}"
down_revision = {previous!r}


def upgrade():
    {upgrade}
"""
MAKE_THINGS = 'op.create_table("things", sa.Column("name", sa.Text, primary_key=True))'

NAMES = text("SELECT name FROM things ORDER BY name")

NO_TABLES = MetaData()

numbers = count()


@pytest.fixture
def url(postgres: int) -> URL:
    """A database that nobody has made yet."""
    settings = PostgresSettings(_env_file=None, db_port=postgres)
    return database_url(settings, None, f"test postgres {os.getpid()} {next(numbers)}")


@pytest.fixture
def connect(url: URL) -> Iterator[Callable[..., Database]]:
    """Makes databases, which are closed in the end."""
    made: list[Database] = []

    def connect(given: URL | None = None, tables: MetaData = NO_TABLES) -> Database:
        made.append(Database.connect(given or url, tables))
        return made[-1]

    yield connect
    for database in made:
        database.close()


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    folder = tmp_path / "things_service" / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    add_revision(folder, "0001", MAKE_THINGS)
    return folder


def add_revision(migrations: Path, number: str, upgrade: str, previous: str | None = None) -> None:
    source = REVISION.format(number=number, previous=previous, upgrade=upgrade)
    (migrations / "versions" / f"{number}_things.py").write_text(source)


@pytest.fixture
def database(connect: Callable[..., Database], migrations: Path) -> Database:
    database = connect()
    database.prepare(migrations)
    return database


def add(database: Database, name: str) -> None:
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO things VALUES (:name)"), {"name": name})


def names(database: Database) -> list[str]:
    return [name for (name,) in database.rows(NAMES, {})]


def backend(database: Database) -> int:
    """The server's process behind the one connection that is open."""
    [(pid,)] = database.rows(text("SELECT pg_backend_pid()"), {})
    return pid


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_missing_database_is_made(database: Database) -> None:
    add(database, "one")

    assert names(database) == ["one"]


def test_preparing_again_changes_nothing(database: Database, migrations: Path) -> None:
    add(database, "one")

    database.prepare(migrations)

    assert names(database) == ["one"]


def test_a_new_migration_is_applied_to_what_is_there(database: Database, migrations: Path) -> None:
    add(database, "one")
    add_revision(migrations, "0002", "op.execute(\"INSERT INTO things VALUES ('two')\")", "0001")

    database.prepare(migrations)

    assert names(database) == ["one", "two"]


def test_a_migration_that_fails_changes_nothing(database: Database, migrations: Path) -> None:
    statement = "op.execute(\"DELETE FROM things\"); op.execute('SELECT nonsense')"
    add(database, "one")
    add_revision(migrations, "0002", statement, "0001")

    with pytest.raises(SchemaNotReady):
        database.prepare(migrations)

    assert names(database) == ["one"]


def test_a_migration_that_is_applied_is_logged_once(
    connect: Callable[..., Database], migrations: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "common.postgres")
    for _ in range(2):
        connect().prepare(migrations)

    assert caplog.messages == ["applied migration 0001 of things_service"]


@pytest.mark.starts
def test_several_processes_may_prepare_at_once(url: URL, connect, migrations: Path) -> None:
    add_revision(migrations, "0002", "op.execute('SELECT pg_sleep(0.2)')", "0001")
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from sqlalchemy import MetaData, make_url
        from common.postgres.database import Database
        database = Database.connect(make_url(sys.argv[1]), MetaData())
        sys.stdin.read()
        database.prepare(Path(sys.argv[2]))
    """)
    command = [sys.executable, "-c", program, url.render_as_string(hide_password=False), str(migrations)]
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.close()

    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0, 0, 0]
    database = connect()
    database.prepare(migrations)
    assert names(database) == []


def test_a_migration_takes_the_time_it_needs(
    connect, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATEMENT_SECONDS", 0.1)
    add_revision(migrations, "0002", "op.execute('SELECT pg_sleep(0.4)')", "0001")
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.2)

    connect().prepare(migrations)


def test_nothing_is_done_before_the_database_is_prepared(connect) -> None:
    database = connect()

    with pytest.raises(SchemaNotReady):
        names(database)
    with pytest.raises(SchemaNotReady), database.transaction():
        pass


def test_who_may_not_make_the_database_waits_for_somebody_who_may(
    url: URL, connect, migrations: Path, database: Database
) -> None:
    visitor = f"visitor{os.getpid()}"
    with database.transaction() as connection:
        connection.execute(text(f"CREATE ROLE {visitor} LOGIN PASSWORD 'visitor'"))
    visitors = url.set(username=visitor, password="visitor", database="the visitor's")

    with pytest.raises(Database.outages, match="permission denied"):
        connect(visitors).prepare(migrations)


def test_a_database_of_a_newer_version_is_waited_at(database: Database, migrations: Path) -> None:
    with database.transaction() as connection:
        connection.execute(text("UPDATE things_service_version SET version_num = '9999'"))

    with pytest.raises(Database.outages, match="9999"):
        database.prepare(migrations)


def test_without_a_server_preparing_meets_an_outage(url: URL, connect, migrations: Path) -> None:
    database = connect(url.set(port=server_processes.free_port()))

    with pytest.raises(Database.outages):
        database.prepare(migrations)


@pytest.mark.parametrize("account", [{"password": "wrong"}, {"username": "nobody"}])
def test_wrong_credentials_are_told_apart_from_an_outage(
    url: URL, connect, migrations: Path, account: dict[str, str]
) -> None:
    wrong = url.set(**account)
    place = (
        f"PostgreSQL at localhost:{url.port} rejects user {wrong.username}: correct DB_USER and DB_PASSWORD"
    )

    with pytest.raises(CredentialsRejected, match=place) as caught:
        connect(wrong).prepare(migrations)

    assert "wrong" not in str(caught.value)


def test_a_database_that_could_not_be_prepared_for_its_credentials_says_so_to_each_call(
    url: URL, connect, migrations: Path
) -> None:
    database = connect(url.set(password="wrong"))
    with pytest.raises(CredentialsRejected):
        database.prepare(migrations)

    with pytest.raises(CredentialsRejected), database.autocommit():
        pass


def test_a_password_that_is_changed_later_is_told_apart_from_an_outage(
    url: URL, connect, migrations: Path, database: Database
) -> None:
    role = f"role{os.getpid()}"
    with database.transaction() as connection:
        connection.execute(text(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'before'"))
    as_role = connect(url.set(username=role, password="before"))
    as_role.prepare(migrations)
    with database.transaction() as connection:
        connection.execute(text(f"ALTER ROLE {role} PASSWORD 'after'"))
    as_role.close()

    with pytest.raises(CredentialsRejected):
        names(as_role)


def test_a_transaction_happens_whole_or_not_at_all(database: Database) -> None:
    def break_off() -> None:
        with database.transaction() as connection:
            connection.execute(text("INSERT INTO things VALUES ('half')"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()

    assert names(database) == []


def test_after_one_lost_connection_the_pool_opens_new_ones(database: Database) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(database.autocommit()) for _ in range(2)]
        pids = [one.execute(text("SELECT pg_backend_pid()")).scalar_one() for one in connections]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda pid=pid: not is_running(pid))

    with pytest.raises(Database.outages):
        names(database)

    assert names(database) == []


def test_times_are_utc(database: Database) -> None:
    [(at,)] = database.rows(text("SELECT now()"), {})

    assert at.utcoffset().total_seconds() == 0


@pytest.mark.kills
def test_after_a_lost_connection_the_next_one_works(database: Database) -> None:
    def ask_until_it_is_lost() -> None:
        while True:
            names(database)

    os.kill(backend(database), signal.SIGTERM)
    with pytest.raises(Database.outages):
        ask_until_it_is_lost()

    assert names(database) == []


@pytest.mark.kills
def test_a_server_that_goes_when_a_read_is_done_does_not_harm_it(database: Database) -> None:
    with database.autocommit() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not is_running(pid))


@pytest.fixture
def hung(database: Database) -> Iterator[Database]:
    """The server's processes behind all connections of the pool are stopped until the test is over."""
    with ExitStack() as stack:
        connections = [stack.enter_context(database.autocommit()) for _ in range(module.THREADS)]
        pids = [one.execute(text("SELECT pg_backend_pid()")).scalar_one() for one in connections]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield database
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.kills
def test_a_server_that_hangs_is_waited_for_until_the_deadline(hung: Database) -> None:
    with pytest.raises(Database.outages, match="in time"):
        names(hung)


def test_a_caller_learns_within_two_seconds_that_there_is_no_answer() -> None:
    assert module.DEADLINE_SECONDS + deadline.GRACE_SECONDS < 2


def test_a_transaction_has_one_deadline_for_all_its_waiting(database: Database) -> None:
    def wait_twice() -> None:
        with database.transaction() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            for _ in range(2):
                connection.execute(text("SELECT pg_sleep(1)"))

    with pytest.raises(Database.outages, match="in time"):
        wait_twice()


@pytest.mark.kills
def test_while_postgres_hangs_each_thread_waits_once(hung: Database) -> None:
    assert count_waits(lambda: names(hung), Database.outages) <= module.THREADS


def test_an_answer_that_is_there_past_the_deadline_is_taken(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_deadline_seconds", 0)

    assert names(database) == []


@pytest.mark.kills
def test_after_a_moment_a_server_that_hung_is_asked_again(database: Database) -> None:
    pid = backend(database)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Database.outages):
        names(database)
    os.kill(pid, signal.SIGCONT)

    eventually(lambda: is_answering(database))


def is_answering(database: Database) -> bool:
    try:
        return names(database) == []
    except Database.outages:
        return False


def test_a_server_that_does_not_even_greet_is_not_waited_for(
    url: URL, connect, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "CONNECT_SECONDS", 0.2)
    with hung_server() as port:
        database = connect(url.set(host="127.0.0.1", port=port))

        with pytest.raises(Database.outages, match="in time"):
            database.prepare(migrations)


def test_a_statement_that_takes_too_long_is_ended(
    connect, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATEMENT_SECONDS", 0.1)
    monkeypatch.setattr(module, "DEADLINE_SECONDS", PATIENCE_SECONDS)
    database = connect()
    database.prepare(migrations)

    with pytest.raises(Database.outages, match="statement timeout"):
        database.rows(text("SELECT pg_sleep(60)"), {})


def test_an_error_does_not_tell_what_was_said(database: Database) -> None:
    statement = text("SELECT 1 / length(:word) + 1 / 0")

    with pytest.raises(DataError) as caught, database.transaction() as connection:
        connection.execute(statement, {"word": "secret"})
    with pytest.raises(psycopg2.DataError) as caught_by_driver:
        database.rows(statement, {"word": "secret"})

    assert "secret" not in f"{caught.value}{caught_by_driver.value}"
