"""The suite behind a real PgBouncer in transaction mode, which shares its connections among all clients."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from sqlalchemy import URL, MetaData, text

from common.errors import CannotServe
from common.postgres import database as module
from common.postgres.database import Database
from common.postgres.url import database_url
from common.settings import PostgresSettings
from tests.own_server import Own
from tests.polling import PATIENCE_SECONDS, eventually, succeeds
from tests.pooler import pooler
from users_service.store import MIGRATIONS

numbers = count()


@pytest.fixture
def connect(own: Own, postgres: int) -> Iterator[Callable[..., Database]]:
    """Makes a database that is not there yet, through the pooler or, with `direct`, past it."""
    server = own(pooler(postgres))
    server.start()
    made: list[Database] = []

    def connect(name: str, direct: bool = False, **parameters: str) -> Database:
        settings = PostgresSettings(_env_file=None, db_port=postgres if direct else server.port)
        url: URL = database_url(settings, None, f"test pooler {os.getpid()} {name}")
        made.append(Database.connect(url.update_query_dict(parameters), MetaData()))
        return made[-1]

    yield connect
    for database in made:
        database.close()


@pytest.fixture
def name() -> str:
    return str(next(numbers))


def _prepare(database: Database) -> None:
    eventually(lambda: succeeds(lambda: database.prepare(MIGRATIONS), Database.outages))


def _set(database: Database, setting: str) -> None:
    """Give the database a setting, and the pooler new connections, which have it."""
    [(name,)] = database.rows(text("SELECT current_database()"), {})
    database.rows(text(f'ALTER DATABASE "{name}" SET {setting}'), {})
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    database.rows(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"), {})
    with pytest.raises(Database.outages):
        database.rows(text("SELECT pg_terminate_backend(pg_backend_pid())"), {})


def test_one_database_after_another_is_made_through_a_pooler(connect, name: str) -> None:
    for database in (connect(f"{name}a"), connect(f"{name}b"), connect(f"{name}c", direct=True)):
        _prepare(database)

        assert database.ping() is None


def test_through_a_pooler_times_are_utc_on_each_of_its_connections(connect, name: str) -> None:
    database = connect(name)
    _prepare(database)
    _set(database, "timezone = 'Asia/Tokyo'")

    def offset(_: int) -> float:
        [(at,)] = database.rows(text("SELECT now() FROM pg_sleep(0.01)"), {})
        return at.utcoffset().total_seconds()

    with ThreadPoolExecutor(module.THREADS) as threads:
        assert set(threads.map(offset, range(50))) == {0}


def test_through_a_pooler_the_limit_of_the_role_ends_a_statement(
    connect, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEADLINE_SECONDS", PATIENCE_SECONDS)
    database = connect(name)
    _prepare(database)
    _set(database, "statement_timeout = 50")

    with pytest.raises(Database.outages, match="statement timeout"):
        database.rows(text("SELECT pg_sleep(60)"), {})


def test_options_of_a_url_that_a_pooler_refuses_are_not_dropped(connect, name: str) -> None:
    database = connect(name, options="-c search_path=elsewhere")

    with pytest.raises(CannotServe, match="behind a pooler that refuses the URL's options"):
        database.ping()


def test_options_of_a_url_are_merged_with_those_of_the_suite(connect, name: str) -> None:
    database = connect(name, direct=True, options="-c search_path=elsewhere")
    _prepare(connect(name, direct=True))
    database._obstacle = None
    settings = text("SELECT current_setting('search_path'), current_setting('statement_timeout')")

    assert database.rows(settings, {}) == [("elsewhere", "1300ms")]
