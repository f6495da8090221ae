"""The image's health check, looking at processes as it looks at those of a container."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

IS_HEALTHY = runpy.run_path(str(Path(__file__).parents[2] / "deploy/healthcheck.py"))["is_healthy"]

SERVE = """
import http.server, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/livez" else 503)
        self.end_headers()
class Server(http.server.HTTPServer):
    address_family = getattr(socket, sys.argv[1])
server = Server((sys.argv[2], 0), Handler)
print("ready", flush=True)
server.serve_forever()
"""
HANG = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print("ready", flush=True)
input()
"""
WAIT = "print('ready', flush=True); input()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def _started(*arguments: str) -> Iterator[Path]:
    """A Python process that has printed a line, as its folder in /proc."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        yield Path(f"/proc/{process.pid}")
        process.terminate()


@pytest.fixture(params=[("AF_INET", "127.0.0.1"), ("AF_INET", "0.0.0.0"), ("AF_INET6", "::")])
def server(request: pytest.FixtureRequest) -> Iterator[Path]:
    yield from _started("-c", SERVE, *request.param)


@pytest.fixture
def hung_server() -> Iterator[Path]:
    yield from _started("-c", HANG)


@pytest.fixture(params=["app.py", "workers.py"])
def process_that_does_not_listen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    (script := tmp_path / request.param).write_text(WAIT)
    yield from _started(str(script))


def test_a_server_that_answers_is_healthy(server: Path) -> None:
    assert IS_HEALTHY([server], "/livez")


def test_a_server_that_answers_503_is_unhealthy(server: Path) -> None:
    assert not IS_HEALTHY([server], "/health")


def test_a_server_that_hangs_is_unhealthy(hung_server: Path) -> None:
    assert not IS_HEALTHY([hung_server], "/livez")


def test_a_process_that_does_not_listen_yet_is_unhealthy(process_that_does_not_listen: Path) -> None:
    assert not IS_HEALTHY([process_that_does_not_listen], "/livez")


def test_a_container_without_processes_is_unhealthy() -> None:
    assert not IS_HEALTHY([Path("/proc/0")], "/livez")
