"""A service as a process: what it refuses, how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import servers

from common.settings import ServiceSettings
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def _run(**variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "registry_service.app"]
    environment = os.environ | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_the_default_secret_is_refused_in_one_line(host: str) -> None:
    done = _run(HOST=host, PORT=str(servers.free_port()))

    assert done.returncode == 3
    assert "JWT_SECRET" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_service_that_nobody_knows_ends_at_once_on_a_signal() -> None:
    port = servers.free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "registry_service.app"],
        cwd=ROOT,
        env=os.environ | {"PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: not servers.is_free(port))
            httpx2.get(f"http://127.0.0.1:{port}/services").raise_for_status()
        finally:
            process.terminate()

        assert process.wait(timeout=5) == 0


@pytest.mark.parametrize(
    ("host", "is_exposed"),
    [
        ("127.0.0.1", False),
        ("127.0.0.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.1", True),
        ("example.com", True),
        ("", True),
    ],
)
def test_what_others_can_reach_is_exposed(host: str, is_exposed: bool) -> None:
    assert ServiceSettings(_env_file=None, port=1, host=host).is_exposed is is_exposed


def test_the_advertised_host_wins() -> None:
    settings = ServiceSettings(_env_file=None, port=1, host="0.0.0.0", advertised_host="users.internal")

    assert settings.address == "users.internal"


def test_a_wildcard_is_not_advertised() -> None:
    assert ServiceSettings(_env_file=None, port=1, host="0.0.0.0").address != "0.0.0.0"


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=127.0.0.2\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.chdir(tmp_path)

    settings = ServiceSettings()

    assert (settings.port, settings.host) == (2, "127.0.0.2")
