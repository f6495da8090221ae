"""Two gateways on one port: one takes the other's place, and no connection is refused."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import httpx2
import pytest
import server_processes
from fastapi import FastAPI

from common.discovery.registration import PROCESS_ID_HEADER
from common.server.run import Server, uvicorn_config
from registry_service.app import create_app
from registry_service.settings import RegistrySettings
from tests import plain_http
from tests.polling import PATIENCE_SECONDS, eventually
from tests.serving import serving

ROOT = Path(__file__).parents[2]


class Gateways:
    """Gateways that share a port."""

    def __init__(self, log: Path, registry_port: int) -> None:
        self._log = log
        self._registry_url = f"http://127.0.0.1:{registry_port}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port = server_processes.free_port()

    def start(self) -> "subprocess.Popen[bytes]":
        variables = {"PORT": str(self.port), "REUSE_PORT": "true", "REGISTRY_URL": self._registry_url}
        with self._log.open("ab") as log:
            command = [sys.executable, "gateway.py"]
            process = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=log, stderr=log)
        self._processes.append(process)
        return process

    def answering(self) -> str | None:
        """Which of them answers a new connection; None when it is refused or broken off."""
        try:
            return plain_http.get(f"http://127.0.0.1:{self.port}/livez").headers[PROCESS_ID_HEADER]
        except httpx2.TransportError:
            return None

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def registry() -> Iterator[FastAPI]:
    settings = RegistrySettings(_env_file=None, port=server_processes.free_port())
    registry = create_app(settings)
    server = Server(uvicorn_config(registry, settings))
    with serving(server):
        yield registry
        server.handle_exit(signal.SIGTERM, None)  # no watcher has to be waited for


@pytest.fixture
def gateways(tmp_path: Path, registry: FastAPI) -> Iterator[Gateways]:
    gateways = Gateways(tmp_path / "gateways.log", registry.state.settings.port)
    yield gateways
    gateways.kill()


@pytest.mark.kills
def test_a_gateway_takes_anothers_place_and_no_connection_is_refused(
    gateways: Gateways, registry: FastAPI
) -> None:
    old = gateways.start()
    first = eventually(gateways.answering)
    answered: list[str | None] = []
    is_over = Event()

    def connect() -> None:
        while not is_over.is_set():
            answered.append(gateways.answering())

    with ThreadPoolExecutor(4) as clients, ExitStack() as stack:
        stack.callback(is_over.set)
        for _ in range(4):
            clients.submit(connect)
        gateways.start()
        eventually(lambda: {*answered} - {first, None})
        eventually(lambda: registry.state.store._count() == 2)
        listed = registry.state.store.instances("gateway")
        old.send_signal(signal.SIGTERM)
        status = old.wait(PATIENCE_SECONDS)
        since = len(answered)
        eventually(lambda: len(answered) > since + 50)

    assert (status, len(listed)) == (0, 1)
    assert None not in answered
    assert first not in answered[since + 4 :]
