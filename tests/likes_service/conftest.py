"""What the likes service lives with: Redis, tubes, the neighbours, a mail server."""

import email
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from uuid import UUID

import httpx
import pytest
import redis
import server_processes
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from fastapi.testclient import TestClient

from common.discovery.client import ServiceClient
from common.errors import PROBLEM_JSON
from common.fields import new_id
from common.jobs.queue import JobQueue
from common.tokens import Tokens
from likes_service.app import create_app
from likes_service.clients import TimelinesClient, UsersClient
from likes_service.mailer import MailServer
from likes_service.models import VALIDATE_TUBE
from likes_service.settings import LikesSettings
from likes_service.store import LikesStore
from tests.instances import directory_of, instance
from tests.polling import PATIENCE_SECONDS
from tests.redis_cluster import RedisCluster
from tests.tubes import take_all

NOW = datetime(2026, 5, 4, 3, 2, 1, 654321, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


@pytest.fixture
def redis_url(redis_port: int) -> str:
    url = f"redis://127.0.0.1:{redis_port}/0"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def raw_redis(redis_url: str) -> Iterator[redis.Redis]:
    """Redis as an operator sees it."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def cluster_url(cluster: RedisCluster) -> str:
    return cluster.url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of a module with PLACES has its store in each of them, unless it looks into Redis itself."""
    if hasattr(metafunc.module, "PLACES") and "store" in metafunc.fixturenames:
        looks = "redis_url" in metafunc.fixturenames
        metafunc.parametrize("store", ["redis_url"] if looks else metafunc.module.PLACES, indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest) -> Iterator[LikesStore]:
    """A store in a single Redis, or where its parameter says."""
    store = LikesStore.connect(request.getfixturevalue(getattr(request, "param", "redis_url")))
    yield store
    store.close()


@pytest.fixture
def post_id() -> UUID:
    return new_id()


def settings(**given: Any) -> LikesSettings:
    return LikesSettings(_env_file=None, registry_url=None, **given)


@pytest.fixture
def client(
    redis_url: str, beanstalkd_port: int, jobs: Callable[[], list[dict[str, Any]]]
) -> Iterator[TestClient]:
    app = create_app(settings(redis_url=redis_url, beanstalkd_port=beanstalkd_port))
    with TestClient(app) as client:
        yield client


@pytest.fixture
def jobs(beanstalkd_port: int) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Takes what the service has put on its tube in this test."""
    queue = JobQueue.connect("127.0.0.1", beanstalkd_port, VALIDATE_TUBE)
    take_all(queue)
    yield lambda: take_all(queue)
    queue.close()


class Neighbour:
    """Another service: answers as it was told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, httpx.Response] = {}
        self.otherwise = problem(404, "thing_not_found")
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(request.url.path, self.otherwise)
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def problem(status: int, code: str) -> httpx.Response:
    details = {"status": status, "title": "-", "detail": "-", "code": code, "request_id": "-"}
    return httpx.Response(status, json=details, headers={"Content-Type": PROBLEM_JSON})


def ask(neighbour: Neighbour, service: str, tokens: Tokens) -> ServiceClient:
    directory = directory_of(instance(1, service))
    return ServiceClient(service, directory, tokens, "likes", httpx.MockTransport(neighbour))


@pytest.fixture
def timelines() -> Neighbour:
    return Neighbour()


@pytest.fixture
def timelines_client(timelines: Neighbour, tokens: Tokens) -> TimelinesClient:
    return TimelinesClient(ask(timelines, "timelines", tokens))


@pytest.fixture
def users() -> Neighbour:
    return Neighbour()


@pytest.fixture
def users_client(users: Neighbour, tokens: Tokens) -> UsersClient:
    return UsersClient(ask(users, "users", tokens))


class Inbox:
    """A mail server: keeps what it takes, and says what it was told to say."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.to_sender = self.to_recipient = self.to_mail = "250 OK"

    async def handle_MAIL(self, server, session, envelope, address, options):  # noqa: N802  aiosmtpd's name
        if self.to_sender.startswith("2"):
            envelope.mail_from = address
        return self.to_sender

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  aiosmtpd's name
        if self.to_recipient.startswith("2"):
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  aiosmtpd's name
        if self.to_mail.startswith("2"):
            self.mails.append(email.message_from_bytes(envelope.content, policy=SMTP))
            self.envelopes.append(envelope)
        return self.to_mail


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def smtp_port(inbox: Inbox) -> Iterator[int]:
    controller = Controller(
        inbox, hostname="127.0.0.1", port=server_processes.free_port(), ready_timeout=PATIENCE_SECONDS
    )
    controller.start()
    yield controller.port
    controller.stop()


@pytest.fixture
def mail_server(smtp_port: int) -> MailServer:
    return MailServer("127.0.0.1", smtp_port, "Microblog <noreply@microblog.example>")
