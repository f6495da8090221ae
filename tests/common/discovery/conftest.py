"""Registries, services that register, and directories that follow."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import httpx2
import pytest
import server_processes
import uvicorn
from fastapi import FastAPI

from common.discovery.directory import Directory
from common.discovery.registration import Registrations
from common.server.health import live_router
from tests import plain_http
from tests.polling import eventually

ROOT = Path(__file__).parents[3]

Start = Callable[..., "subprocess.Popen[bytes]"]


@contextmanager
def _starting(folder: Path) -> Iterator[Start]:
    """Start a process of the project with these variables; what it says is in a file of its module's name."""
    processes = []

    def start(module: str, **variables: Any) -> "subprocess.Popen[bytes]":
        environment = os.environ | {name.upper(): str(value) for name, value in variables.items()}
        command = [sys.executable, "-m", module]
        with (folder / f"{module}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with _starting(tmp_path) as start:
        yield start


class Registry:
    """A registry in a process of its own."""

    def __init__(self, start: Start) -> None:
        self._port = server_processes.free_port()
        self._start = start
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self.process = self._start("registry_service.app", port=self._port)
        eventually(lambda: _is_live(self.url))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def registry(start: Start) -> Registry:
    """One that the test may kill."""
    registry = Registry(start)
    registry.start()
    return registry


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a registry is that is everybody's: whatever a test registers there, it takes off again."""
    with _starting(tmp_path_factory.mktemp("registry")) as start:
        registry = Registry(start)
        registry.start()
        yield registry.url


def _is_live(url: str) -> bool:
    try:
        return plain_http.get(f"{url}/livez").status_code == 200
    except httpx2.TransportError:
        return False


Follow = Callable[[str], Directory]


@pytest.fixture
def follow() -> Iterator[Follow]:
    """Make a directory that follows the registry there."""
    with ExitStack() as stack:

        def follow(url: str) -> Directory:
            directory = stack.enter_context(Directory(url))
            eventually(lambda: directory.is_current)
            return directory

        yield follow


def register(url: str, port: int) -> str:
    body = {"service_name": "users", "host": "127.0.0.1", "port": port}
    instance_id: str = plain_http.post(f"{url}/register", json=body).json()["instance_id"]
    return instance_id


def ports(directory: Directory) -> list[int]:
    return sorted(instance.port for instance in directory.instances("users"))


class Service:
    """What Registration needs of a service: that it is reached where it says, and how it is.

    It may register as so many processes that share its address.
    """

    def __init__(self, registry_url: str, is_leaving: Event | None = None, processes: int = 1) -> None:
        port = server_processes.free_port()
        app = FastAPI(lifespan=self._life)
        app.include_router(live_router)
        self._server = uvicorn.Server(uvicorn.Config(app, port=port, loop="asyncio", log_config=None))
        self._processes = [
            Registrations(registry_url, "", "things", ("127.0.0.1", port), self._is_well, processes > 1)
            for _ in range(processes)
        ]
        self._thread = Thread(target=self._server.run)
        self._is_leaving = is_leaving or Event()
        self.is_healthy = True

    async def _is_well(self) -> bool:
        return self.is_healthy

    @asynccontextmanager
    async def _life(self, app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for registrations in self._processes:
                await stack.enter_async_context(registrations)
            yield
            self._is_leaving.set()
            for registrations in self._processes:
                await registrations.drain()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()
