"""The nine processes of the Procfile, on private ports, on servers of their own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import psycopg2
import pytest
import server_processes

from common.tokens import Tokens
from tests.polling import eventually

ROOT = Path(__file__).parents[2]
PORTS = (8080, 8006, 5100, 5200, 8004, 8005)
PASSWORD = "correct horse"
# What the suite runs with, none of which belongs into an answer or a log.
SECRETS = {
    "JWT_SECRET": "suite-jwt-secret-of-more-than-32-bytes",
    "REGISTRY_TOKEN": "suite-registry-token",
    "DB_PASSWORD": "suite-database-password",
    "AWS_SECRET_ACCESS_KEY": "suite-aws-secret",
}


@dataclass
class Suite:
    """A running suite: its gateway, and where its mails go."""

    gateway: httpx2.Client
    mails: Path
    ports: dict[int, int]
    tokens: Tokens

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


# Hashes, and what the code is made of, are for no answer; tokens, passwords and addresses for no log.
INSIDE = re.compile(
    "|".join([r"\$argon2|password_hash|Traceback|psycopg2|sqlalchemy|\bSELECT \w", *SECRETS.values()])
)
PRIVATE = re.compile("|".join([r"eyJ\w{8}|\$argon2|@example.com", PASSWORD, *SECRETS.values()]))
LINE = re.compile(r"^[0-9:]+ (?P<process>\S+) +\| (?P<said>.*)$", re.MULTILINE)


def _answers_nothing_inside(answer: httpx2.Response) -> None:
    if "/docs/" not in answer.request.url.path:
        answer.read()
        assert not INSIDE.search(answer.text), answer.text
        assert "server" not in answer.headers


def check_log(log: str) -> None:
    """Each event is a line, and none has anything private in it."""
    assert "SIGKILL" not in log, "a process did not stop within five seconds"
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    found = PRIVATE.search(log)
    assert not found, log[max(found.start() - 500, 0) :][:1000]
    events = [line["said"] for line in LINE.finditer(log) if line["process"] != "system"]
    assert events
    assert all(json.loads(event)["message"] for event in events)


@pytest.fixture(scope="session")
def database_user(postgres: int) -> str:
    """Somebody whose password is not the default."""
    url = f"postgresql://postgres:postgres@127.0.0.1:{postgres}/postgres"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE suite SUPERUSER LOGIN PASSWORD '{SECRETS['DB_PASSWORD']}'")
        connection.commit()
    return "suite"


def _free_offset() -> int:
    """Each line of the Procfile adds ten times this to its port, as it does for further instances."""
    return next(n for n in range(20, 99) if all(server_processes.is_free(port + 10 * n) for port in PORTS))


@pytest.fixture(scope="session")
def mails(data: Path) -> Iterator[server_processes.Server]:
    server = server_processes.mail(data / "mail", server_processes.free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def own_beanstalkd(data: Path) -> Iterator[server_processes.Server]:
    """Not the one of other tests: the suite's workers would take their jobs."""
    server = server_processes.beanstalkd(data / "suite-beanstalkd", server_processes.free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def suite(
    data: Path,
    postgres: int,
    database_user: str,
    redis_port: int,
    own_beanstalkd: server_processes.Server,
    dynamodb_port: int,
    mails: server_processes.Server,
) -> Iterator[Suite]:
    offset = _free_offset()
    tokens = Tokens(SECRETS["JWT_SECRET"], "HS256", timedelta(minutes=5))
    ports = {port: port + 10 * offset for port in PORTS}
    environment = _environment(ports[8006]) | {
        "DB_PORT": str(postgres),
        "DB_USER": database_user,
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/9",
        "BEANSTALKD_PORT": str(own_beanstalkd.port),
        "DYNAMODB_URL": f"http://127.0.0.1:{dynamodb_port}",
        "SMTP_PORT": str(mails.port),
    }
    honcho = [sys.executable, "-m", "honcho", "-e", os.devnull, "start", "-p", str(5000 + offset)]
    with (data / "suite.log").open("wb") as log:
        process = subprocess.Popen(
            honcho, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{ports[8080]}"
        hooks = {"response": [_answers_nothing_inside]}
        with httpx2.Client(base_url=url, timeout=10, event_hooks=hooks) as gateway:
            eventually(_is_ready(gateway), seconds=60)
            yield Suite(gateway, data / "mail", ports, tokens)
    finally:
        process.terminate()
        process.wait(timeout=15)
    check_log((data / "suite.log").read_text())


def _environment(registry: int) -> dict[str, str]:
    return (
        os.environ
        | SECRETS
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LOG_LEVEL": "debug",
            "RATE_LIMIT": "off",
            "USERS_DB_NAME": "suite_users",
            "TIMELINES_DB_NAME": "suite_timelines",
            "DYNAMODB_POLLS_TABLE": "SuitePolls",
            "REGISTRY_URL": f"http://127.0.0.1:{registry}",
        }
    )


def _is_ready(gateway: httpx2.Client) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return bool(gateway.get("/health").json()["status"] == "ok")
        except httpx2.TransportError:
            return False

    return look
