"""The world that tests live in: real servers of their own, clean settings, tokens."""

import gc
import logging
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import server_processes
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from common.discovery import balancer
from common.jobs.queue import JobQueue
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from tests.clock import Clock
from tests.own_server import Own, own_servers
from tests.redis_cluster import RedisCluster

SETTINGS = (
    "AWS_",
    "BEANSTALKD_",
    "DB_",
    "DYNAMODB_",
    "JWT_",
    "LOG_",
    "OTEL_",
    "PORT",
    "RATE_",
    "REDIS_",
    "REGISTRY_",
    "SMTP_",
)

tube_numbers = count()


class OneSuite(LoadFileScheduling):
    """Each file goes to one process of pytest-xdist, but those of tests/suite all to the same.

    So the nine processes start once.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/suite" if file.startswith("tests/suite/") else file


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=int, default=8, help="how long to fuzz, twice: bin/fuzz")
    parser.addoption("--fuzz-seed", type=int, default=1, help="what the fuzzing begins with")


def pytest_configure() -> None:
    """Whatever this shell has set for the suite that it runs is not for its tests, nor is any proxy."""
    for name in list(os.environ):
        if name.startswith(SETTINGS) or name.endswith(("_DB_NAME", "_DATABASE_URL", "_PROXY", "_proxy")):
            del os.environ[name]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    return OneSuite(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The faults take minutes: first, so that another process runs all else meanwhile."""
    items.sort(key=lambda item: "tests/faults/" not in item.nodeid)


def pytest_collection_finish() -> None:
    """Never look for garbage among thousands of tests: they stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data() -> Iterator[Path]:
    # Not pytest's own folder: PostgreSQL's user, which is not root, has to reach it.
    folder = Path(tempfile.mkdtemp(prefix="microblog-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(data: Path) -> Iterator[int]:
    """A PostgreSQL's port; user and password are the defaults."""
    server = server_processes.postgres(data / "postgres", server_processes.free_port(), durable=False)
    yield server.port
    server.stop()


@pytest.fixture(scope="session")
def redis_port(data: Path) -> Iterator[int]:
    server = server_processes.redis(data / "redis", server_processes.free_port(), durable=False)
    yield server.port
    server.stop()


@pytest.fixture(scope="session")
def beanstalkd_port(data: Path) -> Iterator[int]:
    server = server_processes.beanstalkd(data / "beanstalkd", server_processes.free_port(), durable=False)
    yield server.port
    server.stop()


@pytest.fixture
def queues(beanstalkd_port: int) -> Iterator[Callable[[], JobQueue]]:
    """Makes queues on tubes that nobody else uses."""
    with ExitStack() as stack:

        def make() -> JobQueue:
            queue = JobQueue.connect("127.0.0.1", beanstalkd_port, f"test.{next(tube_numbers)}")
            return stack.enter_context(closing(queue))

        yield make


@pytest.fixture(scope="session")
def dynamodb_port(data: Path) -> Iterator[int]:
    server = server_processes.dynamodb(data / "dynamodb", server_processes.free_port())
    yield server.port
    server.stop()


@pytest.fixture
def own(data: Path) -> Iterator[Own]:
    """Make a backing server that is this test's alone; the test starts it."""
    with own_servers(data / "own") as own:
        yield own


@pytest.fixture(scope="session")
def _cluster(data: Path) -> Iterator[RedisCluster]:
    with own_servers(data / "own") as own:
        yield RedisCluster(own)


@pytest.fixture
def cluster(_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """A Redis Cluster with nothing in it. What a test kills there is started again."""
    _cluster.flush()
    yield _cluster
    _cluster.mend()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, which is afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def ejected_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ejection of an instance ends while the test goes on, however long that takes."""
    monkeypatch.setattr(balancer, "BASE_EJECTION_SECONDS", math.inf)
    monkeypatch.setattr(balancer, "MAX_EJECTION_SECONDS", math.inf)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The addresses of names, as a resolver would give them; a name without any does not resolve."""
    known: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        found = known.get(name, [name])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [one for address in found for one in resolve(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """An address that answers no attempt to connect, as that of a machine that is off."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.3", 0), backlog=0))
        for _ in range(3):  # as many as fill its queue: from then on it drops each attempt
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def tokens() -> Tokens:
    """What signs and checks tokens in a service with default settings."""
    return Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(minutes=5))


@pytest.fixture
def as_user(tokens: Tokens) -> Callable[[str], dict[str, str]]:
    """The headers of a request by this user: `client.post(path, headers=as_user("alice"))`."""
    return lambda username: {"Authorization": f"Bearer {tokens.issue(username)}"}


@pytest.fixture
def as_service(tokens: Tokens) -> Callable[[str], dict[str, str]]:
    return lambda name: {"Authorization": f"Bearer {tokens.issue_for_service(name)}"}
