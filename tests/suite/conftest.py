"""The nine processes of the Procfile, on private ports, on servers of their own."""

import json
import re
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
from suite import locations, procfile, stop

from common.tokens import Tokens
from tests.otlp_receiver import Receiver, receiver
from tests.polling import PATIENCE_SECONDS, eventually
from tests.suite.documented_errors import DocumentedErrors

PASSWORD = "correct horse"
# What the suite runs with, none of which belongs into an answer or a log.
SECRETS = {
    "JWT_SECRET": "suite-jwt-secret-of-more-than-32-bytes",
    "REGISTRY_TOKEN": "suite-registry-token",
    "DB_PASSWORD": "suite-database-password",
    "AWS_SECRET_ACCESS_KEY": "suite-aws-secret",
}
OWN = SECRETS | {
    "LOG_LEVEL": "debug",
    "RATE_LIMIT": "off",
    "USERS_DB_NAME": "suite_users",
    "TIMELINES_DB_NAME": "suite_timelines",
    "DYNAMODB_POLLS_TABLE": "SuitePolls",
}


@dataclass
class Suite:
    """A running suite: its gateway, and where its mails go."""

    gateway: httpx2.Client
    mails: Path
    ports: dict[str, int]
    tokens: Tokens
    traces: Receiver

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


def is_stream(answer: httpx2.Response) -> bool:
    """Whether its body has no end."""
    return answer.headers.get("Content-Type", "").startswith("text/event-stream")


def _answers_nothing_inside(answer: httpx2.Response) -> None:
    if "/docs/" not in answer.request.url.path and not is_stream(answer):
        answer.read()
        assert not INSIDE.search(answer.text), answer.text
        assert "server" not in answer.headers


def check_log(log: str) -> None:
    """Each event is a line, and none has anything private in it."""
    assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:4000]
    found = PRIVATE.search(log)
    assert not found, log[max(found.start() - 500, 0) :][:1000]
    events = log.splitlines()
    assert events
    assert all(json.loads(event)["message"] for event in events)


@pytest.fixture(scope="session")
def database_user(postgres: int) -> str:
    """A user of the database whose password is not the default."""
    url = f"postgresql://postgres:postgres@127.0.0.1:{postgres}/postgres"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE suite SUPERUSER LOGIN PASSWORD '{SECRETS['DB_PASSWORD']}'")
        connection.commit()
    return "suite"


@pytest.fixture(scope="session")
def mails(data: Path) -> Iterator[server_processes.Server]:
    server = server_processes.mail(data / "mail", server_processes.free_port())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def own_beanstalkd(data: Path) -> Iterator[server_processes.Server]:
    """Not the one of other tests: the suite's workers would take their jobs."""
    server = server_processes.beanstalkd(
        data / "suite-beanstalkd", server_processes.free_port(), durable=False
    )
    yield server
    server.stop()


@pytest.fixture(scope="session")
def collector() -> Iterator[Receiver]:
    with receiver() as collector:
        yield collector


@pytest.fixture(scope="session")
def suite(
    data: Path,
    postgres: int,
    database_user: str,
    redis_port: int,
    own_beanstalkd: server_processes.Server,
    dynamodb_port: int,
    mails: server_processes.Server,
    collector: Receiver,
) -> Iterator[Suite]:
    tokens = Tokens(SECRETS["JWT_SECRET"], "HS256", timedelta(minutes=5))
    lines = procfile()
    ports = {line.name: server_processes.free_port() for line in lines if line.port}
    variables = OWN | locations(
        {
            "registry": ports["registry"],
            "postgres": postgres,
            "beanstalkd": own_beanstalkd.port,
            "dynamodb": dynamodb_port,
            "mail": mails.port,
        }
    )
    variables |= {"DB_USER": database_user, "REDIS_URL": f"redis://127.0.0.1:{redis_port}/9"}
    variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "500"}
    logs = {line.name: data / f"suite-{line.name}.log" for line in lines}
    processes = [line.start(logs[line.name], variables, ports.get(line.name)) for line in lines]
    try:
        url = f"http://127.0.0.1:{ports['gateway']}"
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [_answers_nothing_inside]}
        with httpx2.Client(
            verify=False, base_url=url, timeout=PATIENCE_SECONDS, event_hooks=hooks
        ) as gateway:
            eventually(_is_ready(gateway))
            hooks["response"].append(DocumentedErrors(gateway.get("/openapi.json").json()))
            gateway.event_hooks = hooks
            yield Suite(gateway, data / "mail", ports, tokens, collector)
    finally:
        stop(processes, PATIENCE_SECONDS)
    assert [process.returncode for process in processes] == [0] * len(processes), "one did not stop"
    check_log("".join(log.read_text() for log in logs.values()))
    assert not any(PRIVATE.search(body.decode("latin-1")) for body in collector.bodies)


def _is_ready(gateway: httpx2.Client) -> Callable[[], bool]:
    def look() -> bool:
        try:
            return bool(gateway.get("/health").json()["status"] == "ok")
        except httpx2.TransportError:
            return False

    return look
