"""A service as a process: what it refuses, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import httpx2
import pytest
import server_processes

from common.discovery.registration import DEREGISTER_TIMEOUT_SECONDS
from common.server import run
from tests import plain_http
from tests.polling import PATIENCE_SECONDS, eventually

ROOT = Path(__file__).parents[3]

# A service with a request that takes until a file is there, and a store that is never ready.
PROGRAM = """
import sys
from pathlib import Path
from threading import Event
from time import sleep
from common.server import dependency
from common.server.dependency import Dependency
from common.api.routing import router
from common.server.app import create_service
from common.server.run import serve
from common.settings import ServiceSettings

routes = router("tests")

@routes.get("/until/{name}")
def until(name: str) -> str:
    while not Path(sys.argv[1], name).exists():
        sleep(0.01)
    return "done"

class Stuck:
    outages = ()
    def prepare(self): Event().wait()
    def ping(self): Event().wait()
    def close(self): pass

dependency.FIRST_PREPARE_SECONDS = 0
settings = ServiceSettings.read()
stuck = Stuck()
needs = [Dependency("stuck", stuck, stuck.prepare, is_required=False)]
serve(create_service("tests", "For tests.", settings, [routes], needs), settings)
"""


class Registry(ThreadingHTTPServer):
    """Writes down what it is told, and hangs when it shall."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Told)
        self.told: list[str] = []
        self.answers = Event()
        self.answers.set()


class _Told(BaseHTTPRequestHandler):
    server: Registry

    def do(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        self.server.told.append(f"{self.command} {self.path} {body.get('status', '')}".strip())
        self.server.answers.wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"instance_id": "1"}')

    do_POST = do_DELETE = do  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Tests look at what was told instead."""


class Process:
    """The program above, running."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    def ends(self) -> bool:
        return self.process.wait(PATIENCE_SECONDS) == 0


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        Thread(target=registry.serve_forever, daemon=True).start()
        yield registry
        registry.answers.set()
        registry.shutdown()


@contextmanager
def _running(tmp_path: Path, **variables: str) -> Iterator[Process]:
    port = server_processes.free_port()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PORT": str(port)} | variables,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: not server_processes.is_free(port))
            yield Process(process, port)
        finally:
            process.kill()


@pytest.fixture
def registered(tmp_path: Path, registry: Registry) -> Iterator[Process]:
    with _running(tmp_path, REGISTRY_URL=f"http://127.0.0.1:{registry.server_port}") as running:
        eventually(lambda: "POST /heartbeat/1 degraded" in registry.told)
        yield running


def _run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *(arguments or ("-c", PROGRAM, ""))]
    environment = os.environ | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


PROCFILE = (ROOT / "Procfile").read_text()
COMMANDS = re.findall(r"exec python (.+)$", PROCFILE, flags=re.MULTILINE)


@pytest.mark.starts
@pytest.mark.parametrize("command", [*COMMANDS, "-m uvicorn users_service.app:app"])
def test_beyond_loopback_the_default_secret_is_refused_in_one_line(command: str) -> None:
    done = _run(*command.split(), HOST="0.0.0.0")

    assert (done.returncode, done.stderr) == (3, "")
    [line] = done.stdout.splitlines()
    assert "JWT_SECRET" in line
    assert "REGISTRY_TOKEN" in line


@pytest.mark.starts
def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = _run(PORT=port, REGISTRY_URL="")

    assert done.returncode != 0
    assert port in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.kills
def test_a_service_that_is_told_to_end_says_so_serves_on_finishes_and_deregisters(
    registered: Process, registry: Registry, tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        in_flight = pool.submit(httpx2.get, f"{registered.url}/until/released", timeout=PATIENCE_SECONDS)
        registered.process.terminate()
        eventually(lambda: "POST /heartbeat/1 draining" in registry.told)
        while_draining = plain_http.get(f"{registered.url}/livez")
        eventually(lambda: server_processes.is_free(int(registered.url.rpartition(":")[2])))
        told_before = registry.told[:]
        (tmp_path / "released").touch()

        assert in_flight.result().json() == "done"
    assert while_draining.status_code == 200
    assert "DELETE /deregister/1" not in told_before
    assert registered.ends()
    assert registry.told[-1] == "DELETE /deregister/1"


@pytest.mark.kills
def test_a_service_that_is_told_to_end_keeps_no_connection(registered: Process, registry: Registry) -> None:
    with httpx2.Client(verify=False, base_url=registered.url) as client:
        before = client.get("/livez").headers
        registered.process.terminate()
        eventually(lambda: "POST /heartbeat/1 draining" in registry.told)

        assert (before.get("Connection"), client.get("/livez").headers.get("Connection")) == (None, "close")


@pytest.mark.kills
def test_a_service_that_drains_is_never_listed_as_well_again(registered: Process, registry: Registry) -> None:
    registered.process.terminate()
    assert registered.ends()

    draining = registry.told.index("POST /heartbeat/1 draining")
    assert set(registry.told[draining:]) == {"POST /heartbeat/1 draining", "DELETE /deregister/1"}


@pytest.mark.kills
@pytest.mark.parametrize(
    "signals",
    [[signal.SIGTERM], [signal.SIGINT], [signal.SIGINT, signal.SIGINT, signal.SIGTERM]],
    ids=["SIGTERM", "SIGINT", "more than one"],
)
def test_a_signal_ends_a_service_whatever_hangs(
    registered: Process, registry: Registry, signals: list[signal.Signals]
) -> None:
    registry.answers.clear()
    for number in signals:
        registered.process.send_signal(number)

    assert registered.ends()


def test_a_service_gives_itself_less_than_the_five_seconds_after_which_foreman_kills_it() -> None:
    assert run.DRAIN_SECONDS + run.GRACEFUL_TIMEOUT_SECONDS + DEREGISTER_TIMEOUT_SECONDS < 5


@pytest.mark.kills
def test_a_service_that_is_not_registered_ends_on_a_signal_too(tmp_path: Path) -> None:
    with _running(tmp_path, REGISTRY_URL="") as running:
        plain_http.get(f"{running.url}/livez").raise_for_status()
        running.process.terminate()

        assert running.ends()
