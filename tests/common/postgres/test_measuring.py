"""What is measured of PostgreSQL, on a real one."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import server_processes
from sqlalchemy import MetaData, text

from common.postgres.database import Database
from common.postgres.url import database_url
from common.settings import THREADS, PostgresSettings
from tests.scrape import growth, value

OPERATIONS = "db_client_operation_duration_seconds_count"
CONNECTIONS = "db_client_connection_count"

numbers = count()


def connect(port: int) -> Database:
    name = f"test measuring {os.getpid()} {next(numbers)}"
    return Database.connect(
        database_url(PostgresSettings(_env_file=None, db_port=port), None, name), MetaData()
    )


@pytest.fixture
def database(postgres: int, tmp_path: Path) -> Iterator[Database]:
    database = connect(postgres)
    migrations = tmp_path / "things_service" / "migrations"
    (migrations / "versions").mkdir(parents=True)
    (migrations / "env.py").write_text("from common.postgres import migrations\n\nmigrations.run()\n")
    database.prepare(migrations)
    yield database
    database.close()


def test_a_statement_is_counted_by_its_verb(database: Database) -> None:
    with growth(OPERATIONS, db_operation_name="SELECT", error_type="") as growing:
        database.rows(text("  SELECT 1"), {})

        assert growing() == 1


def test_a_transaction_is_counted_once(database: Database) -> None:
    with growth(OPERATIONS, db_operation_name="TRANSACTION", error_type="") as growing:
        with database.transaction() as connection:
            connection.execute(text("SELECT 1"))
            connection.execute(text("SELECT 2"))

        assert growing() == 1


def test_a_result_that_the_service_refuses_is_no_outage(database: Database) -> None:
    with growth(OPERATIONS, db_operation_name="TRANSACTION", error_type="") as growing:
        with pytest.raises(LookupError), database.transaction():
            raise LookupError

        assert growing() == 1


def test_an_outage_is_counted_by_its_error() -> None:
    database = connect(server_processes.free_port())
    with growth(OPERATIONS, db_system_name="postgresql", error_type="SchemaNotReady") as growing:
        with pytest.raises(database.outages):
            database.rows(text("SELECT 1"), {})

        assert growing() == 1


def test_connections_in_use_are_shown(database: Database) -> None:
    used = {"db_client_connection_pool_name": "postgresql", "db_client_connection_state": "used"}

    before = value(CONNECTIONS, **used)
    with database.transaction():
        during = value(CONNECTIONS, **used)

    assert (during - before, value(CONNECTIONS, **used) - before) == (1, 0)


def test_the_most_connections_that_there_may_be_are_shown(database: Database) -> None:
    limit = value("db_client_connection_max", db_client_connection_pool_name="postgresql")

    assert limit % THREADS == 0
    assert limit > 0
