"""A registry whose time passes when a test says so."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from registry_service import app as entry_point
from registry_service.app import create_app
from registry_service.clock import StallFreeClock
from registry_service.models import NewInstance
from registry_service.settings import RegistrySettings
from registry_service.store import RegistryStore
from tests.clock import Clock


@pytest.fixture
def store(clock: Clock) -> RegistryStore:
    return RegistryStore(clock)


@pytest.fixture
def register(store: RegistryStore) -> Callable[..., str]:
    """Register an instance of users at this port; its id."""

    def register(
        port: int = 5100, service_name: str = "users", host: str = "127.0.0.1", shares_address: bool = False
    ) -> str:
        new = NewInstance(service_name=service_name, host=host, port=port)
        return store.register(new, shares_address).instance_id

    return register


@pytest.fixture
def app(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(entry_point, "StallFreeClock", lambda: StallFreeClock(clock))
    return create_app(RegistrySettings(_env_file=None))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, client=("127.0.0.1", 50000)) as client:
        yield client
