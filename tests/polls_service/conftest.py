"""A polls service on a table of its own."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from polls_service.app import create_app
from polls_service.settings import PollsSettings
from polls_service.store import PollsStore


@pytest.fixture
def app(dynamodb_port: int) -> FastAPI:
    url = f"http://127.0.0.1:{dynamodb_port}"
    app = create_app(PollsSettings(_env_file=None, registry_url=None, dynamodb_url=url))
    app.state.store.prepare()
    return app


@pytest.fixture
def store(app: FastAPI) -> Iterator[PollsStore]:
    yield app.state.store
    app.state.store.close()


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client
