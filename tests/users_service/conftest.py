"""A users service on a database that is empty again for each test."""

from collections.abc import Callable, Iterator

import pytest
import server_processes
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from users_service.app import create_app
from users_service.models import NewUser
from users_service.settings import UsersSettings
from users_service.store import UsersStore
from users_service.tables import metadata

PASSWORD = "correct horse"
# The users whose counts disagree with their follows. A test expects none.
WRONG_COUNTS = text("""
    SELECT username FROM users
    WHERE followers <> (SELECT count(*) FROM follows WHERE followee = username)
       OR followees <> (SELECT count(*) FROM follows WHERE follower = username)
""")


@pytest.fixture
def events_port() -> int:
    """The port of Beanstalkd: for most tests there is none."""
    return server_processes.free_port()


@pytest.fixture
def settings(postgres: int, events_port: int) -> UsersSettings:
    return UsersSettings(
        _env_file=None,
        registry_url=None,
        db_port=postgres,
        users_db_name="test_users",
        beanstalkd_port=events_port,
    )


@pytest.fixture
def app(settings: UsersSettings) -> Iterator[FastAPI]:
    app = create_app(settings)
    app.state.store.prepare()
    with app.state.store._database.transaction() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    yield app
    app.state.store.close()


@pytest.fixture
def store(app: FastAPI) -> UsersStore:
    found: UsersStore = app.state.store
    return found


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def users(store: UsersStore) -> Callable[..., None]:
    """Make users whom nobody signs in as."""

    def make(*names: str) -> None:
        for name in names:
            store.register(NewUser(username=name, password=PASSWORD), "no hash")

    return make
