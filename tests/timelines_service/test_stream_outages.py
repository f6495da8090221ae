"""Live streams while something is killed or restarted: nothing is missed, and nothing comes twice."""

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
import server_processes
from suite import start, stop

from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from tests.listener import Listener
from tests.own_server import OwnServer
from tests.polling import eventually

pytestmark = [pytest.mark.kills, pytest.mark.starts]

numbers = itertools.count()


class Processes:
    """Real processes of the suite, by their ports."""

    def __init__(self, data: Path, postgres: int, beanstalkd: int) -> None:
        self._data = data
        self._running: dict[int, object] = {}
        self._variables = {
            "DB_PORT": str(postgres),
            "BEANSTALKD_PORT": str(beanstalkd),
            "TIMELINES_DB_NAME": "test_stream_outages",
            "RATE_LIMIT": "off",
        }

    def start(self, *command: str, port: int | None = None, **variables: str) -> int:
        """Start a process that serves, and wait until it answers; its port."""
        port = port or server_processes.free_port()
        log = self._data / f"streams-{port}.log"
        self._running[port] = start(
            ["python", *command], log, self._variables | variables | {"PORT": str(port)}
        )
        eventually(lambda: _answers(f"http://127.0.0.1:{port}/livez"))
        return port

    def start_all(self, instances: int) -> None:
        """Start a gateway, and so many instances of timelines behind it."""
        registry = self.start("-m", "registry_service.app")
        self._variables["REGISTRY_URL"] = f"http://127.0.0.1:{registry}"
        self.timelines = [self.start("-m", "timelines_service.app") for _ in range(instances)]
        self.gateway = self.start("gateway.py")
        eventually(lambda: _answers(f"http://127.0.0.1:{self.gateway}/posts"))

    def end(self, port: int, number: signal.Signals) -> None:
        process = self._running.pop(port)
        os.kill(process.pid, number)
        process.wait()

    def stop(self) -> None:
        stop(self._running.values())


def _answers(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(url, verify=False).status_code == 200
    return False


@pytest.fixture(scope="module")
def own_postgres(data: Path) -> Iterator[OwnServer]:
    server = OwnServer(server_processes.postgres, data / "streams" / "data")
    server.start()
    yield server
    server.stop()


# Once: to start them takes longer than all else here, and each test leaves them running.
@pytest.fixture(scope="module")
def processes(data: Path, own_postgres: OwnServer, beanstalkd_port: int) -> Iterator[Processes]:
    processes = Processes(data, own_postgres.port, beanstalkd_port)
    processes.start_all(2)
    yield processes
    processes.stop()


def _write(port: int, text: str) -> None:
    """Write a post, whatever is away for a moment."""
    token = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(minutes=5)).issue("alice")
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": text.replace(" ", "-")}

    def is_written() -> bool:
        with suppress(httpx2.TransportError):
            answer = httpx2.post(
                f"http://127.0.0.1:{port}/posts", json={"text": text}, headers=headers, verify=False
            )
            return answer.status_code == 201
        return False

    eventually(is_written)


def _assert_whole(gateway: int, disturb: Callable[[], object]) -> None:
    """What a client gets that resumes its stream is what was written, once and in order."""
    first = next(numbers)
    texts = [f"Post {first}-{number}" for number in range(12)]
    with Listener(gateway, timeline="public") as listener:
        for number, text in enumerate(texts):
            if number == 6:
                # A client that has seen no event knows no place to resume at.
                eventually(listener.heard)
                disturb()
            _write(gateway, text)
        eventually(lambda: len(listener.texts()) >= len(texts))

        assert listener.texts() == texts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stream_goes_on_at_another_instance(processes: Processes, number: signal.Signals) -> None:
    def restart_all() -> None:
        for port in processes.timelines:
            processes.end(port, number)
            processes.start("-m", "timelines_service.app", port=port)

    _assert_whole(processes.gateway, restart_all)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stream_goes_on_after_a_restart_of_the_gateway(
    processes: Processes, number: signal.Signals
) -> None:
    def restart() -> None:
        processes.end(processes.gateway, number)
        processes.start("gateway.py", port=processes.gateway)

    _assert_whole(processes.gateway, restart)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stream_goes_on_after_a_restart_of_postgresql(
    processes: Processes, own_postgres: OwnServer, number: signal.Signals
) -> None:
    def restart() -> None:
        own_postgres.end_by(number)
        own_postgres.start()

    _assert_whole(processes.gateway, restart)
