"""The workers as processes, and all that a like sets going."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import servers

from common.queue import JobQueue
from common.registry import Table
from likes_service import service, workers
from likes_service.models import NOTIFY_TUBE, VALIDATE_TUBE
from likes_service.service import Likes
from likes_service.settings import LikesSettings
from likes_service.store import LikesStore
from tests.instances import instance
from tests.likes_service.conftest import settings, take_all
from tests.waiting import eventually


class Suite(ThreadingHTTPServer):
    """The registry, timelines and users, in one: what it does not know is not there."""

    daemon_threads = True
    is_failing = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.is_over = Event()
        self.asked: list[str] = []
        services = {name: (instance(self.server_port, name),) for name in ("timelines", "users")}
        table = Table(epoch="e", version=1, services=services)
        self.answers = {"/services": table.model_dump(mode="json")}


class Answer(BaseHTTPRequestHandler):
    server: Suite

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if "wait=" in url.query:
            self.server.is_over.wait()
        body = json.dumps(self.server.answers.get(url.path, {})).encode()
        self.send_response(self._status(url.path))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.server.asked.append(url.path)

    def _status(self, path: str) -> int:
        if self.server.is_failing and path != "/services":
            return 500
        return 200 if path in self.server.answers else 404

    def log_message(self, *words: object) -> None:
        """Not among the tests' own lines."""


@pytest.fixture
def suite() -> Iterator[Suite]:
    with Suite() as suite:
        thread = threading.Thread(target=suite.serve_forever, args=[0.01])
        thread.start()
        yield suite
        suite.is_over.set()
        suite.shutdown()
        thread.join()


@pytest.fixture
def given(suite, redis_url, beanstalkd_port, smtp_port) -> LikesSettings:
    given = settings(
        redis_url=redis_url, beanstalkd_port=beanstalkd_port, smtp_host="127.0.0.1", smtp_port=smtp_port
    )
    return given.model_copy(update={"registry_url": f"http://127.0.0.1:{suite.server_port}"})


@contextmanager
def at_work(given: LikesSettings) -> Iterator[None]:
    """Both workers run."""
    stop = Event()
    threads = [threading.Thread(target=run, args=[given, stop]) for run in (workers.validate, workers.notify)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@contextmanager
def liking(given: LikesSettings) -> Iterator[Likes]:
    """Takes likes."""
    store = LikesStore.connect(given.redis_url)
    queue = JobQueue.connect(given.beanstalkd_host, given.beanstalkd_port, VALIDATE_TUBE)
    with closing(store), closing(queue):
        likes = Likes(store, queue)
        yield likes
        likes.stop()


@pytest.fixture
def tubes(beanstalkd_port: int) -> None:
    """Nothing on them is another test's."""
    for tube in (VALIDATE_TUBE, NOTIFY_TUBE):
        with closing(JobQueue.connect("127.0.0.1", beanstalkd_port, tube)) as queue:
            take_all(queue)


@pytest.fixture
def likes(given, tubes) -> Iterator[Likes]:
    """Takes likes; both workers run."""
    with at_work(given), liking(given) as likes:
        yield likes


@pytest.fixture
def post(suite, post_id) -> UUID:
    """A post of alice's, who has an address."""
    suite.answers[f"/posts/id/{post_id}"] = {"id": str(post_id), "username": "alice", "text": "Hello"}
    suite.answers["/users/alice"] = {"username": "alice", "email": "alice@example.com"}
    return post_id


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., servers.Server]]:
    """Starts servers that are this test's alone."""
    with ExitStack() as stack:

        def start(kind: Callable[[Path, int], servers.Server], port: int) -> servers.Server:
            server = kind(tmp_path, port)
            stack.callback(server.stop)
            return server

        yield start


def test_a_like_ends_in_a_mail_to_the_author(likes, inbox, post):
    likes.like(post, "bob")

    assert eventually(lambda: inbox.mails)[0]["To"] == "alice@example.com"


def test_a_like_waits_for_a_timelines_service_that_fails(likes, store, suite, inbox, post):
    suite.is_failing = True
    likes.like(post, "bob")
    eventually(lambda: f"/posts/id/{post}" in suite.asked)
    suite.is_failing = False

    eventually(lambda: inbox.mails)

    assert store.count(post).count == 1


def test_a_like_made_while_beanstalkd_is_away_ends_in_a_mail_when_it_is_back(
    given, inbox, post, start, monkeypatch
):
    monkeypatch.setattr(service, "OVERDUE_AFTER", timedelta(0))
    monkeypatch.setattr(workers, "SWEEP_SECONDS", 0.1)
    given = given.model_copy(update={"beanstalkd_port": servers.free_port()})
    with at_work(given), liking(given) as likes:
        likes.like(post, "bob")
        start(servers.beanstalkd, given.beanstalkd_port)
        mails = eventually(lambda: inbox.mails)

    assert [mail["To"] for mail in mails] == ["alice@example.com"]


def test_a_like_whose_job_comes_while_redis_is_away_ends_in_a_mail_when_it_is_back(
    given, tubes, inbox, post, start, caplog
):
    port = servers.free_port()
    given = given.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})
    redis = start(servers.redis, port)
    with liking(given) as likes:
        likes.like(post, "bob")
    redis.stop()
    with at_work(given):
        eventually(lambda: "again in" in caplog.text)
        start(servers.redis, port)
        mails = eventually(lambda: inbox.mails)

    assert [mail["To"] for mail in mails] == ["alice@example.com"]


def test_a_like_of_a_missing_post_ends_in_a_mail_to_the_liker(likes, store, suite, inbox, post_id):
    suite.answers["/users/bob"] = {"username": "bob", "email": "bob@example.com"}

    likes.like(post_id, "bob")

    assert eventually(lambda: inbox.mails)[0]["To"] == "bob@example.com"
    assert store.count(post_id).count == 0


@pytest.mark.parametrize("arguments", [[], ["validation"], ["notification"]])
def test_a_worker_starts_before_all_that_it_needs_and_stops_when_told(arguments):
    nowhere = str(servers.free_port())
    environment = os.environ | {
        "REDIS_URL": f"redis://127.0.0.1:{nowhere}/0",
        "REGISTRY_URL": f"http://127.0.0.1:{nowhere}",
        "BEANSTALKD_PORT": nowhere,
        "SMTP_PORT": nowhere,
    }
    command = [sys.executable, "-m", "likes_service.workers", *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        while "reconnecting" not in worker.stdout.readline():
            assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)

        assert worker.wait(5) == 0


def test_there_is_no_other_worker():
    command = [sys.executable, "-m", "likes_service.workers", "other"]

    assert subprocess.run(command, capture_output=True).returncode == 2
