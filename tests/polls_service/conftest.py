"""A polls service, and the troubles that no stand-in makes by itself."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
import server_processes
from botocore.awsrequest import AWSResponse
from botocore.loaders import JSONFileLoader
from fastapi import FastAPI
from fastapi.testclient import TestClient

from polls_service.app import create_app
from polls_service.dynamodb import DynamoTable
from polls_service.settings import PollsSettings
from polls_service.store import PollsStore

JSON = {"Content-Type": "application/x-amz-json-1.0"}
Hook = Callable[[str, Callable[..., Any]], None]
Interfere = Callable[[str, list[AWSResponse]], None]
Refusal = Callable[..., AWSResponse]


@pytest.fixture(scope="session")
def url(dynamodb_port: int) -> str:
    return f"http://127.0.0.1:{dynamodb_port}"


@pytest.fixture(scope="session", autouse=True)
def descriptions() -> Iterator[None]:
    """botocore reads its files once for all clients: that takes longer than most tests."""
    read = cache(partial(JSONFileLoader.load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: read(path))
        yield


@pytest.fixture(scope="session")
def app(url: str) -> Iterator[FastAPI]:
    # Without a Beanstalkd: ending a wait for events would take longer than most tests.
    nowhere = server_processes.free_port()
    app = create_app(
        PollsSettings(_env_file=None, registry_url=None, dynamodb_url=url, beanstalkd_port=nowhere)
    )
    app.state.store.prepare()
    yield app
    app.state.store.close()


@pytest.fixture
def store(app: FastAPI) -> PollsStore:
    found: PollsStore = app.state.store
    return found


@pytest.fixture
def table(store: PollsStore) -> DynamoTable:
    return store._table


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def hook(table: DynamoTable) -> Iterator[Hook]:
    """Call this, in this test, whenever botocore says that."""
    hooked: list[tuple[str, Callable[..., Any]]] = []
    events = table._dynamodb.meta.events

    def hook(event: str, call: Callable[..., Any]) -> None:
        events.register(event, call)
        hooked.append((event, call))

    yield hook
    for event, call in hooked:
        events.unregister(event, call)


@pytest.fixture
def interfere(hook: Hook) -> Interfere:
    """Give these answers to the next calls of an operation; those after them reach the server."""

    def interfere(operation: str, answers: list[AWSResponse]) -> None:
        def response(**_: Any) -> AWSResponse | None:
            return answers.pop(0) if answers else None

        hook(f"before-send.dynamodb.{operation}", response)

    return interfere


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> list[bytes]:
        return [self._body]


@pytest.fixture
def refusal() -> Refusal:
    """DynamoDB's answer with this code, and these reasons for cancelling a transaction."""

    def refusal(code: str, *reasons: str, status: int = 400) -> AWSResponse:
        listed = ", ".join(f'{{"Code": "{reason}"}}' for reason in reasons)
        body = f'{{"__type": "com.amazonaws.dynamodb#{code}", "CancellationReasons": [{listed}]}}'
        return AWSResponse("", status, JSON, _Raw(body.encode()))

    return refusal


@pytest.fixture
def response() -> Callable[[str], AWSResponse]:
    """A success with this body."""
    return lambda body: AWSResponse("", 200, JSON, _Raw(body.encode()))
