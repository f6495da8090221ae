"""How the registry is reached: by a name that leads elsewhere, over TLS."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn

from common.discovery.directory import Directory
from registry_service.app import create_app
from registry_service.settings import RegistrySettings
from tests.polling import eventually
from tests.serving import serving

Serve = Callable[..., uvicorn.Server]


class _Server(uvicorn.Server):
    """Ends as the suite's own does: clients that wait for a change get a response first."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.on_shutdown()
        await super().shutdown(sockets)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a registry at this address."""
    with ExitStack() as stack:

        def serve(host: str, port: int, certificate: Path | None = None) -> uvicorn.Server:
            app = create_app(RegistrySettings(_env_file=None))
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
        epoch = directory._tables[0].epoch
        old.should_exit = True

        eventually(lambda: directory.is_current and directory._tables[0].epoch != epoch)


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
