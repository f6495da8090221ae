"""The configurations of nginx and HAProxy, on the real servers, in front of a gateway's stand-in."""

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
import server_processes

from tests.deploy.processes import ROOT
from tests.polling import eventually
from tests.programs import program

FOLDER = ROOT / "deploy/edge"
SERVERS = {"nginx.conf": ["nginx", "-g", "daemon off;", "-c"], "haproxy.cfg": ["haproxy", "-db", "-f"]}
CHECKS = {"nginx.conf": ["nginx", "-t", "-c"], "haproxy.cfg": ["haproxy", "-c", "-f"]}
TIMEOUT_SECONDS = 10


class Gateway(BaseHTTPRequestHandler):
    """Says what it was sent, and streams one event until it may go on."""

    protocol_version = "HTTP/1.1"
    go_on = Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        if self.path == "/stream":
            self.wfile.write(b"data: one\n\n")
            self.go_on.wait(TIMEOUT_SECONDS)
        else:
            self.wfile.write(
                f"{self.headers['X-Forwarded-For']} {self.headers['X-Forwarded-Proto']}".encode()
            )

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost, as the configurations expect it."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "fullchain.pem", folder / "privkey.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(chain), "-keyout", str(key)]
    subprocess.run(command, check=True, capture_output=True)
    (folder / "combined.pem").write_text(chain.read_text() + key.read_text())
    return folder


@pytest.fixture
def gateway_port() -> Iterator[int]:
    Gateway.go_on.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        Thread(target=server.serve_forever).start()
        yield server.server_port
        Gateway.go_on.set()
        server.shutdown()


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    program(CHECKS[request.param][0])
    return request.param


def _command(command: list[str], configuration: Path) -> list[str]:
    name, *options = command
    return [program(name), *options, str(configuration)]


@pytest.fixture
def port() -> int:
    return server_processes.free_port()


@pytest.fixture
def configuration(name: str, port: int, gateway_port: int, certificate: Path, tmp_path: Path) -> Path:
    """What is deployed, but for its ports and folders; the second gateway is not there."""
    text = (FOLDER / name).read_text()
    text = re.sub(r"(?m)^.*\[::\]:.*\n", "", text)
    text = re.sub(r"\b(listen |bind :)80\b", rf"\g<1>{server_processes.free_port()}", text)
    text = re.sub(r"\b(listen |bind :)443\b", rf"\g<1>{port}", text)
    text = text.replace(":8080", f":{gateway_port}").replace(":8090", f":{server_processes.free_port()}")
    text = text.replace("/etc/ssl/microblog", str(certificate)).replace("/var/log/nginx", str(tmp_path))
    file = tmp_path / name
    file.write_text(f"pid {tmp_path}/pid; error_log {tmp_path}/errors;\n{text}" if "nginx" in name else text)
    return file


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate / "fullchain.pem"))


@pytest.fixture
def edge(name: str, port: int, configuration: Path) -> Iterator[int]:
    """The port on which the server takes TLS."""
    with subprocess.Popen(_command(SERVERS[name], configuration), stderr=subprocess.DEVNULL) as process:
        eventually(lambda: not server_processes.is_free(port))
        yield port
        process.terminate()


def _get(port: int, path: str, trust: ssl.SSLContext, **headers: str) -> tuple[int, str]:
    with closing(HTTPSConnection("localhost", port, timeout=TIMEOUT_SECONDS, context=trust)) as connection:
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as response:
            return response.status, response.read().decode()


def test_the_server_accepts_its_configuration(name: str, configuration: Path) -> None:
    checked = subprocess.run(_command(CHECKS[name], configuration), capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr.lower()


def test_the_gateway_learns_the_clients_address_from_the_proxy_alone(
    edge: int, trust: ssl.SSLContext
) -> None:
    claimed = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}

    assert eventually(lambda: _get(edge, "/", trust, **claimed)) == (200, "127.0.0.1 https")


def test_clients_may_speak_http_2(edge: int, trust: ssl.SSLContext) -> None:
    trust.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("localhost", edge), TIMEOUT_SECONDS) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"


def test_an_event_of_a_stream_is_passed_on_before_the_next_one(edge: int, trust: ssl.SSLContext) -> None:
    with closing(HTTPSConnection("localhost", edge, timeout=TIMEOUT_SECONDS, context=trust)) as connection:
        connection.request("GET", "/stream")
        with connection.getresponse() as response:
            assert response.readline() == b"data: one\n"


def test_metrics_are_not_public(edge: int, trust: ssl.SSLContext) -> None:
    assert _get(edge, "/metrics", trust)[0] == 404
