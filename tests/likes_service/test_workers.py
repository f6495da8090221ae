"""The workers as processes, and all that a like sets going."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from urllib.parse import urlsplit

import pytest
import servers

from common.queue import JobQueue
from common.registry import Table
from likes_service import workers
from likes_service.models import NOTIFY_TUBE, VALIDATE_TUBE
from likes_service.service import Likes
from tests.instances import instance
from tests.likes_service.conftest import settings, take_all
from tests.waiting import eventually


class Suite(ThreadingHTTPServer):
    """The registry, timelines and users, in one: what it does not know is not there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.is_over = Event()
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
        self.send_response(200 if url.path in self.server.answers else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

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
def likes(store, suite, redis_url, beanstalkd_port, smtp_port) -> Iterator[Likes]:
    """Takes likes; both workers run."""
    given = settings(redis_url=redis_url, beanstalkd_port=beanstalkd_port, smtp_host="127.0.0.1")
    given = given.model_copy(
        update={"registry_url": f"http://127.0.0.1:{suite.server_port}", "smtp_port": smtp_port}
    )
    queues = [JobQueue.connect("127.0.0.1", beanstalkd_port, tube) for tube in (VALIDATE_TUBE, NOTIFY_TUBE)]
    for queue in queues:
        take_all(queue)
    stop = Event()
    threads = [threading.Thread(target=run, args=[given, stop]) for run in (workers.validate, workers.notify)]
    for thread in threads:
        thread.start()
    yield Likes(store, queues[0])
    stop.set()
    for thread in threads:
        thread.join()
    for queue in queues:
        queue.close()


def test_a_like_ends_in_a_mail_to_the_author(likes, suite, inbox, post_id):
    suite.answers[f"/posts/id/{post_id}"] = {"id": str(post_id), "username": "alice", "text": "Hello"}
    suite.answers["/users/alice"] = {"username": "alice", "email": "alice@example.com"}

    likes.like(post_id, "bob")

    assert eventually(lambda: inbox.mails)[0]["To"] == "alice@example.com"


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
