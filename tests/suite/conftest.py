"""The nine processes of the Procfile, on private ports, on servers of their own."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import servers

from common.settings import DEFAULT_JWT_SECRET
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PORTS = (8080, 8006, 5100, 5200, 8004, 8005)
PASSWORD = "correct horse"


@dataclass
class Suite:
    """A running suite: its gateway, and where its mails go."""

    gateway: httpx2.Client
    mails: Path
    ports: dict[int, int]

    def sign_up(self, username: str) -> dict[str, str]:
        """Register a user and sign in; the headers to go on with."""
        user = {"username": username, "password": PASSWORD, "email": f"{username}@example.com"}
        self.gateway.post("/register", json=user).raise_for_status()
        token = self.gateway.post("/login", data={"username": username, "password": PASSWORD}).json()
        return {"Authorization": f"Bearer {token['access_token']}"}

    def see(self, path: str) -> Any:
        """What is there, or will be when a worker has come to it."""

        def look() -> httpx2.Response | None:
            answer = self.gateway.get(path)
            return answer if answer.status_code == 200 else None

        return eventually(look).json()

    def mails_to(self, username: str) -> list[str]:
        texts = [path.read_text() for path in (self.mails / "new").glob("*")]
        return [text for text in texts if f"To: {username}@example.com" in text]


# What no answer may say: hashes, what the code is made of, what signs tokens.
SECRETS = re.compile(
    rf"\$argon2|password_hash|Traceback|psycopg2|sqlalchemy|\bSELECT \w|{DEFAULT_JWT_SECRET}"
)


def _says_no_secret(answer: httpx2.Response) -> None:
    if "/docs/" not in answer.request.url.path:
        answer.read()
        assert not SECRETS.search(answer.text), answer.text
        assert "server" not in answer.headers


def _free_offset() -> int:
    """Each line of the Procfile adds ten times this to its port, as it does for further instances."""
    return next(n for n in range(20, 99) if all(servers.is_free(port + 10 * n) for port in PORTS))


@pytest.fixture(scope="session")
def mails(data: Path) -> Iterator[servers.Server]:
    server = servers.mail(data / "mail", servers.free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def own_beanstalkd(data: Path) -> Iterator[servers.Server]:
    """Not the one of other tests: the suite's workers would take their jobs."""
    server = servers.beanstalkd(data / "suite-beanstalkd", servers.free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def suite(
    data: Path,
    postgres: int,
    redis_port: int,
    own_beanstalkd: servers.Server,
    dynamodb_port: int,
    mails: servers.Server,
) -> Iterator[Suite]:
    offset = _free_offset()
    ports = {port: port + 10 * offset for port in PORTS}
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DB_PORT": str(postgres),
        "USERS_DB_NAME": "suite_users",
        "TIMELINES_DB_NAME": "suite_timelines",
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/9",
        "BEANSTALKD_PORT": str(own_beanstalkd.port),
        "DYNAMODB_URL": f"http://127.0.0.1:{dynamodb_port}",
        "DYNAMODB_POLLS_TABLE": "SuitePolls",
        "REGISTRY_URL": f"http://127.0.0.1:{ports[8006]}",
        "SMTP_PORT": str(mails.port),
    }
    honcho = [sys.executable, "-m", "honcho", "-e", os.devnull, "start", "-p", str(5000 + offset)]
    with (data / "suite.log").open("wb") as log:
        process = subprocess.Popen(
            honcho, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{ports[8080]}"
        hooks = {"response": [_says_no_secret]}
        with httpx2.Client(base_url=url, timeout=10, event_hooks=hooks) as gateway:
            eventually(_is_ready(gateway), seconds=60)
            yield Suite(gateway, data / "mail", ports)
    finally:
        process.terminate()
        process.wait(timeout=15)
    said = (data / "suite.log").read_text()
    assert "SIGKILL" not in said, "a process did not stop within five seconds"
    assert "Traceback" not in said, said[said.index("Traceback") - 500 :][:4000]


def _is_ready(gateway: httpx2.Client) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return bool(gateway.get("/health").json()["status"] == "ok")
        except httpx2.TransportError:
            return False

    return look
