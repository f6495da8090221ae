"""A gateway in front of real servers that do as they are told."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import gateway
from common.discovery.models import Instance, Status
from tests.instances import instance, snapshot_of

Behaviour = Callable[["Answer"], None]


class Answer(BaseHTTPRequestHandler):
    """One request at an upstream, and what it answers."""

    protocol_version = "HTTP/1.1"
    server: "Upstream"

    def do(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length) if length else self._chunks()
        if self.path.startswith("/revocations"):
            # No request of a client: the gateway keeps its list of revoked tokens current.
            self.reply(404)
        else:
            self.server.requests.append(self)
            self.server.behaviour(self)

    do_GET = do_HEAD = do_POST = do_PUT = do  # noqa: N815  http.server's names

    def _chunks(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    def reply(
        self, status: int = 200, body: bytes = b"{}", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def drip(self, chunks: list[bytes], seconds: float) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(sum(map(len, chunks))))
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(chunk)
            self.server.end.wait(seconds)

    def hang_until_left(self) -> None:
        """Until the other side has closed the connection."""
        self.connection.recv(1)
        self.close_connection = True

    def hang(self) -> None:
        self.server.end.wait()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass

    def handle(self) -> None:
        # The gateway has hung up, in the middle of a body perhaps, or we have.
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()


class Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service_name: str, host: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((host, port), Answer)
        self.service_name = service_name
        self.requests: list[Answer] = []
        self.behaviour: Behaviour = Answer.reply
        self.end = threading.Event()
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()

    def close(self) -> None:
        self.end.set()
        self.shutdown()
        self.server_close()

    def as_instance(self, status: Status = Status.UP) -> Instance:
        return instance(self.server_port, self.service_name, status)


@pytest.fixture
def app() -> FastAPI:
    return gateway.create_app(gateway.GatewaySettings(_env_file=None, registry_url=None))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def listed(app: FastAPI) -> Callable[..., None]:
    """Tell the gateway of these instances, and of no others."""

    def tell(*instances: Instance) -> None:
        app.state.directory.update(snapshot_of(*instances), now=0)

    return tell


@pytest.fixture
def start() -> Iterator[Callable[..., Upstream]]:
    """Start an upstream of that name."""
    upstreams: list[Upstream] = []

    def start(service_name: str, host: str = "127.0.0.1", port: int = 0) -> Upstream:
        upstreams.append(Upstream(service_name, host, port))
        return upstreams[-1]

    yield start
    for upstream in upstreams:
        upstream.close()


@pytest.fixture
def timelines(start: Callable[[str], Upstream], listed: Callable[..., None]) -> Upstream:
    """The one instance that there is."""
    upstream = start("timelines")
    listed(upstream.as_instance())
    return upstream
