"""How the registry is reached: by a name that leads elsewhere, over TLS."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from common.discovery.directory import Directory
from registry_service.app import create_app
from registry_service.settings import RegistrySettings
from tests import plain_http
from tests.common.discovery.conftest import ports, register
from tests.polling import eventually
from tests.serving import serving

Serve = Callable[..., uvicorn.Server]


class _Server(uvicorn.Server):
    """Ends as the suite's own does: clients that wait for a change get a response first."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.on_shutdown()
        await super().shutdown(sockets)


class _OfTheLastVersion:
    """ASGI middleware: the registry knows nothing of changes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["query_string"] = scope["query_string"].replace(b"changes=", b"unknown=")
        await self._app(scope, receive, send)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a registry at this address."""
    with ExitStack() as stack:

        def serve(
            host: str, port: int, certificate: Path | None = None, is_old: bool = False
        ) -> uvicorn.Server:
            app = create_app(RegistrySettings(_env_file=None))
            if is_old:
                app._middleware = [*app._middleware[:-1], Middleware(_OfTheLastVersion)]
            key = certificate and certificate.with_suffix(".key")
            config = uvicorn.Config(app, host, port, ssl_certfile=certificate, ssl_keyfile=key)
            config.timeout_graceful_shutdown = 2
            config.proxy_headers = False
            server = _Server(config)
            stack.enter_context(serving(server))
            return server

        yield serve


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of `localhost` that its own authority has signed; its key is beside it."""
    path = tmp_path / "localhost.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", path.with_suffix(".key")]
    subprocess.run(["openssl", "req", "-x509", *key, "-out", path, *subject], check=True, capture_output=True)
    return path


def _free_port() -> int:
    """One that is free at every address."""
    with socket.create_server(("", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_registry_whose_name_leads_elsewhere_is_followed(
    serve: Serve, addresses: dict[str, list[str]]
) -> None:
    port = _free_port()
    old = serve("127.0.0.1", port)
    addresses["registry.test"] = ["127.0.0.1"]
    with Directory(f"http://registry.test:{port}") as directory:
        eventually(lambda: directory.is_current)
        serve("127.0.0.2", port)
        addresses["registry.test"] = ["127.0.0.2"]
        epoch = directory._tables[0].snapshot.epoch
        old.should_exit = True

        eventually(lambda: directory.is_current and directory._tables[0].snapshot.epoch != epoch)


def test_a_registry_of_the_last_version_is_followed(serve: Serve) -> None:
    port = _free_port()
    store = serve("127.0.0.1", port, is_old=True).config.app.state.store
    with Directory(f"http://127.0.0.1:{port}") as directory:
        eventually(lambda: directory.is_current)
        for found in (5100, 5110):
            register(f"http://127.0.0.1:{port}", found)
            eventually(lambda found=found: found in ports(directory))
        [kept, _] = store.instances("users")
        plain_http.delete(f"http://127.0.0.1:{port}/deregister/{kept.instance_id}")

        eventually(lambda: ports(directory) == [5110])


def test_a_registry_with_a_certificate_of_ones_own_authority_is_reached(
    serve: Serve, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = _free_port()
    serve("127.0.0.1", port, certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Directory(f"https://localhost:{port}") as directory:
        eventually(lambda: directory.is_current)


def test_a_certificate_that_cannot_be_checked_is_named_in_the_log(
    serve: Serve, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    port = _free_port()
    serve("127.0.0.1", port, certificate)
    with Directory(f"https://localhost:{port}") as directory:
        eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)

        assert not directory.is_current
