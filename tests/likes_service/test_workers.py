"""The workers as processes, and all that a like sets going."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event
from urllib.parse import urlsplit
from uuid import UUID

import greenstalk
import pytest
import server_processes

from common.fields import new_id
from common.jobs.queue import JobQueue
from likes_service import service, workers
from likes_service.models import EVENTS_TUBE, NOTIFY_TUBE, USERS_TUBE, VALIDATE_TUBE
from likes_service.service import Likes
from likes_service.settings import LikesSettings
from likes_service.store import LikesStore
from tests.instances import instance, snapshot_of
from tests.likes_service.conftest import LATER, NOW, settings, take_all
from tests.likes_service.scripted_smtp import END, GREETING, ScriptedServer, scripted_server
from tests.polling import PATIENCE_SECONDS, eventually
from tests.tubes import is_empty, job

ROOT = Path(__file__).parents[2]


class Suite(ThreadingHTTPServer):
    """The registry, timelines and users, in one: what it does not know is not there."""

    daemon_threads = True
    is_failing = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.is_over = Event()
        self.asked: list[str] = []
        table = snapshot_of(*(instance(self.server_port, name) for name in ("timelines", "users")))
        self.answers = {"/services": table.model_dump(mode="json")}

    def handle_error(self, *about: object) -> None:
        """Who asked was killed: nothing for the tests' own lines."""


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
def scripted() -> Iterator[ScriptedServer]:
    """The mail server of a test that asks for it, instead of the inbox."""
    with scripted_server() as server:
        yield server


@pytest.fixture
def given(request, suite, redis_url, beanstalkd_port) -> LikesSettings:
    is_scripted = "scripted" in request.fixturenames
    smtp_port = (
        request.getfixturevalue("scripted").port if is_scripted else request.getfixturevalue("smtp_port")
    )
    given = settings(
        redis_url=redis_url, beanstalkd_port=beanstalkd_port, smtp_host="127.0.0.1", smtp_port=smtp_port
    )
    return given.model_copy(update={"registry_url": f"http://127.0.0.1:{suite.server_port}"})


BOTH = (workers.validate, workers.notify)


@contextmanager
def at_work(
    given: LikesSettings, runs: Sequence[Callable[[LikesSettings, Event], None]] = BOTH
) -> Iterator[None]:
    """Both workers run, or these."""
    stop = Event()
    threads = [threading.Thread(target=run, args=[given, stop]) for run in runs]
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
        likes.close()


@pytest.fixture
def tubes(beanstalkd_port: int) -> None:
    """Nothing on them is another test's."""
    for tube in (VALIDATE_TUBE, NOTIFY_TUBE, EVENTS_TUBE, USERS_TUBE):
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


@pytest.mark.kills
def test_a_like_made_while_beanstalkd_is_away_ends_in_a_mail_when_it_is_back(
    given, inbox, post, own, monkeypatch
):
    monkeypatch.setattr(service, "OVERDUE_AFTER", timedelta(0))
    monkeypatch.setattr(workers, "SWEEP_INTERVAL_SECONDS", 0.1)
    beanstalkd = own(server_processes.beanstalkd)
    given = given.model_copy(update={"beanstalkd_port": beanstalkd.port})
    with at_work(given), liking(given) as likes:
        likes.like(post, "bob")
        beanstalkd.start()
        mails = eventually(lambda: inbox.mails)

    assert [mail["To"] for mail in mails] == ["alice@example.com"]


@pytest.mark.kills
def test_a_like_whose_job_comes_while_redis_is_away_ends_in_a_mail_when_it_is_back(
    given, tubes, inbox, post, own, caplog
):
    redis = own(server_processes.redis)
    redis.start()
    given = given.model_copy(update={"redis_url": f"redis://127.0.0.1:{redis.port}/0"})
    with liking(given) as likes:
        likes.like(post, "bob")
    redis.stop()
    with at_work(given):
        eventually(lambda: "again in" in caplog.text)
        redis.start()
        mails = eventually(lambda: inbox.mails)

    assert [mail["To"] for mail in mails] == ["alice@example.com"]


def test_a_like_of_a_missing_post_ends_in_a_mail_to_the_liker(likes, store, suite, inbox, post_id):
    suite.answers["/users/bob"] = {"username": "bob", "email": "bob@example.com"}

    likes.like(post_id, "bob")

    assert eventually(lambda: inbox.mails)[0]["To"] == "bob@example.com"
    assert store.count(post_id).count == 0


Process = subprocess.Popen[bytes]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the workers said."""
    return tmp_path / "workers.log"


@pytest.fixture
def worker(given, suite, log) -> Iterator[Callable[..., Process]]:
    """Starts a worker; one that is killed at a step, if that is named."""
    environment = os.environ | {
        "REDIS_URL": given.redis_url,
        "REGISTRY_URL": str(given.registry_url),
        "BEANSTALKD_PORT": str(given.beanstalkd_port),
        "SMTP_HOST": given.smtp_host,
        "SMTP_PORT": str(given.smtp_port),
        "SMTP_RETRY_SECONDS": "1",
    }
    with ExitStack() as stack:

        def start(worker: str, *crash: str) -> Process:
            how = ["-m", "tests.crash_at", *crash] if crash else ["-m"]
            command = [sys.executable, *how, "likes_service.workers", worker]
            with log.open("ab") as output:
                process = stack.enter_context(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
                )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def raw_tubes(beanstalkd_port: int, tubes) -> Iterator[greenstalk.Client[bytes]]:
    """Beanstalkd as an operator sees it."""
    watch = [VALIDATE_TUBE, NOTIFY_TUBE, EVENTS_TUBE]
    with greenstalk.Client(("127.0.0.1", beanstalkd_port), encoding=None, watch=watch) as client:
        yield client


QUEUE, STORE = "common.jobs.queue:JobQueue", "likes_service.store:LikesStore"
SENDING = "likes_service.mailer:SmtpSession.send"


@pytest.fixture
def bobs_like(given, raw_tubes, worker, store, post_id) -> Callable[[str, str, str], None]:
    """bob likes the post, this worker dies over it, and both work until nothing is left to do."""

    def like(name: str, step: str, moment: str) -> None:
        with liking(given) as likes:
            likes.like(post_id, "bob")
        with at_work(given, BOTH[:1] if name == "notification" else ()):
            assert worker(name, step, moment).wait(PATIENCE_SECONDS) == -signal.SIGKILL
        with at_work(given):
            eventually(
                lambda: (
                    store.pending(post_id, "bob") is None and is_empty(raw_tubes, VALIDATE_TUBE, NOTIFY_TUBE)
                )
            )

    return like


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (f"{QUEUE}.reserve", "after"),
        (f"{QUEUE}.put", "after"),
        (f"{QUEUE}.delete", "before"),
    ],
)
def test_a_validation_worker_that_is_killed_leaves_one_like_and_one_mail(
    bobs_like, store, inbox, post, step, moment
):
    bobs_like("validation", step, moment)

    assert store.count(post).count == 1
    assert [mail["To"] for mail in inbox.mails] == ["alice@example.com"]


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (f"{STORE}.undo", "after"),
        (f"{QUEUE}.delete", "before"),
    ],
)
def test_a_validation_worker_that_is_killed_takes_a_like_back_once_and_mails_its_liker_once(
    bobs_like, store, suite, inbox, post_id, step, moment
):
    suite.answers["/users/bob"] = {"username": "bob", "email": "bob@example.com"}

    bobs_like("validation", step, moment)

    assert (store.count(post_id).count, store.liked_by("bob", 1, None), store.popular(1, None)) == (0, [], [])
    assert [mail["To"] for mail in inbox.mails] == ["bob@example.com"]


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment", "mails"),
    [
        (f"{QUEUE}.reserve", "after", 1),
        # Claimed and perhaps sent: nobody can know, and none is better than two.
        (SENDING, "before", 0),
        (SENDING, "after", 1),
        (f"{QUEUE}.delete", "before", 1),
    ],
)
def test_a_notification_worker_that_is_killed_mails_nobody_twice(bobs_like, inbox, post, step, moment, mails):
    bobs_like("notification", step, moment)

    assert len(inbox.mails) == mails


@pytest.mark.starts
def test_two_workers_of_each_kind_mail_each_like_once(given, raw_tubes, worker, suite, inbox, post):
    for _ in range(2):
        worker("validation")
        worker("notification")
    likers = [f"user{number}" for number in range(30)]
    with liking(given) as likes:
        for liker in likers:
            likes.like(post, liker)
    for liker in likers:  # and once more, as after a lost lease
        raw_tubes.use(VALIDATE_TUBE)
        raw_tubes.put(job({"post_id": str(post), "username": liker}))
    eventually(lambda: len(inbox.mails) >= 30 and is_empty(raw_tubes, VALIDATE_TUBE, NOTIFY_TUBE))

    assert sorted(mail["Subject"].split()[0] for mail in inbox.mails) == sorted(likers)


@pytest.fixture
def authors(suite) -> Callable[[str], UUID]:
    """Makes a post of this author's, who has an address."""

    def write(author: str) -> UUID:
        post_id = new_id()
        suite.answers[f"/posts/id/{post_id}"] = {"id": str(post_id), "username": author, "text": "Hello"}
        suite.answers[f"/users/{author}"] = {"username": author, "email": f"{author}@example.com"}
        return post_id

    return write


def recipients(server: ScriptedServer) -> list[str]:
    return [str(message_from_bytes(mail)["To"]) for mail in server.mails]


@pytest.fixture
def waiting_mails(raw_tubes) -> Iterator[Callable[[], int]]:
    """How many mails wait for their time; they are gone after the test."""
    raw_tubes.use(NOTIFY_TUBE)
    yield lambda: int(raw_tubes.stats_tube(NOTIFY_TUBE)["current-jobs-delayed"])
    with suppress(greenstalk.NotFoundError):
        while True:
            raw_tubes.delete(raw_tubes.peek_delayed())


def test_a_deferred_mail_waits_alone(given, tubes, scripted, authors, waiting_mails):
    scripted.says["TO:<ALICE@EXAMPLE.COM>"] = "451 4.7.1 greylisted"
    posts = [authors(author) for author in ("alice", "carol", "alice", "daisy")]
    with at_work(given), liking(given) as likes:
        for post in posts:
            likes.like(post, "bob")
        eventually(lambda: len(scripted.mails) == 2 and waiting_mails() == 2)

    assert sorted(recipients(scripted)) == ["carol@example.com", "daisy@example.com"]
    assert scripted.reached.count("TO:<ALICE@EXAMPLE.COM>") == 2


def test_a_deferred_mail_arrives_after_its_pause(given, tubes, scripted, authors):
    scripted.says["TO:<ALICE@EXAMPLE.COM>"] = "451 4.7.1 greylisted"
    given = given.model_copy(update={"smtp_retry_seconds": 1})
    with at_work(given), liking(given) as likes:
        likes.like(authors("alice"), "bob")
        eventually(lambda: scripted.reached.count("TO:<ALICE@EXAMPLE.COM>") > 1)
        del scripted.says["TO:<ALICE@EXAMPLE.COM>"]
        eventually(lambda: scripted.mails)

    assert recipients(scripted) == ["alice@example.com"]


def test_a_recipient_that_the_server_is_slow_to_check_holds_up_no_other(given, tubes, scripted, authors):
    check = scripted.wait_at("TO:<ALICE@EXAMPLE.COM>")
    with at_work(given), liking(given) as likes:
        likes.like(authors("alice"), "bob")
        eventually(lambda: "TO:<ALICE@EXAMPLE.COM>" in scripted.reached)
        likes.like(authors("carol"), "bob")
        eventually(lambda: recipients(scripted) == ["carol@example.com"])
        check.set()
        eventually(lambda: len(scripted.mails) == 2)


def test_a_worker_keeps_a_job_for_as_long_as_the_mail_server_takes(
    given, raw_tubes, scripted, store, authors, monkeypatch
):
    monkeypatch.setattr(workers, "TOUCH_SECONDS", 0.2)
    check = scripted.wait_at("RCPT")
    post = authors("alice")
    store.like(post, "bob", NOW, LATER)
    liked = {"kind": "liked", "post_id": str(post), "username": "bob", "author": "alice", "text": "-"}
    raw_tubes.use(NOTIFY_TUBE)
    number = raw_tubes.put(job(liked), ttr=4)
    with at_work(given, BOTH[1:]):
        eventually(lambda: raw_tubes.stats_job(number)["age"] > 5)
        eventually(lambda: 1 < raw_tubes.stats_job(number)["time-left"] <= 4)
        check.set()
        eventually(lambda: is_empty(raw_tubes, NOTIFY_TUBE))

    assert len(scripted.mails) == 1


@pytest.mark.kills
@pytest.mark.parametrize("step", [GREETING, "EHLO", "RCPT", "DATA"])
def test_a_worker_that_is_stopped_while_the_mail_server_lets_it_wait_leaves_the_mail_to_another(
    given, scripted, worker, raw_tubes, authors, step
):
    wait = scripted.wait_at(step)
    stopped = worker("notification")
    with at_work(given, BOTH[:1]), liking(given) as likes:
        likes.like(authors("alice"), "bob")
        eventually(lambda: step in scripted.reached)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(PATIENCE_SECONDS) == 0
    wait.set()
    worker("notification")
    eventually(lambda: scripted.mails and is_empty(raw_tubes, NOTIFY_TUBE))

    assert recipients(scripted) == ["alice@example.com"]


@pytest.mark.kills
def test_a_worker_that_is_stopped_when_the_mail_is_out_sends_no_second(
    given, scripted, worker, raw_tubes, authors
):
    scripted.wait_at(END)
    stopped = worker("notification")
    with at_work(given, BOTH[:1]), liking(given) as likes:
        likes.like(authors("alice"), "bob")
        eventually(lambda: scripted.mails)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(PATIENCE_SECONDS) == 0

    assert is_empty(raw_tubes, NOTIFY_TUBE)
    assert recipients(scripted) == ["alice@example.com"]


JUNK = [b"", b"[]", b"\xff\xfe", b"x" * 65535, b"[" * 60000, job({"post_id": "1"}), job({"kind": "liked"})]


@pytest.mark.starts
@pytest.mark.parametrize(("name", "tube"), [("validation", VALIDATE_TUBE), ("notification", NOTIFY_TUBE)])
def test_junk_is_buried_with_its_reason_and_stops_no_worker(raw_tubes, worker, log, name, tube):
    raw_tubes.use(tube)
    numbers = [raw_tubes.put(junk) for junk in JUNK]
    process = worker(name)
    eventually(lambda: raw_tubes.stats_tube(tube)["current-jobs-buried"] == len(JUNK))
    for number in numbers:
        raw_tubes.delete(number)

    assert all(f"job {number} buried: it cannot be read" in log.read_text() for number in numbers)
    assert process.poll() is None


@pytest.mark.kills
@pytest.mark.parametrize("arguments", [[], ["validation"], ["notification"]])
def test_a_worker_starts_before_all_that_it_needs_and_stops_when_told(arguments):
    nowhere = str(server_processes.free_port())
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

        assert worker.wait(PATIENCE_SECONDS) == 0


@pytest.mark.starts
def test_there_is_no_other_worker():
    command = [sys.executable, "-m", "likes_service.workers", "other"]

    assert subprocess.run(command, capture_output=True).returncode == 2


BOB_IS_GONE = {"kind": "account_deleted", "username": "bob", "at": "2026-01-01T00:00:00Z"}


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (f"{STORE}.delete_user", "before"),
        (f"{STORE}.delete_user", "after"),
        (f"{QUEUE}.put", "after"),
        (f"{QUEUE}.delete", "before"),
    ],
)
def test_a_validation_worker_that_is_killed_still_clears_a_deleted_user_and_tells_users(
    given, raw_tubes, worker, store, post_id, step, moment
):
    store.like(post_id, "bob", NOW, LATER)
    raw_tubes.use(EVENTS_TUBE)
    raw_tubes.put(job(BOB_IS_GONE))
    assert worker("validation", step, moment).wait(PATIENCE_SECONDS) == -signal.SIGKILL

    with at_work(given, [workers.apply_events]):
        eventually(lambda: is_empty(raw_tubes, EVENTS_TUBE))

    assert store.popular(9, None) == []
    with closing(JobQueue.connect("127.0.0.1", given.beanstalkd_port, USERS_TUBE)) as queue:
        told = take_all(queue)
    assert told
    assert all(one == {"kind": "account_cleared", "username": "bob", "service": "likes"} for one in told)


@pytest.mark.parametrize(
    "payload", [{"kind": "promoted"}, {"kind": "post_deleted"}, BOB_IS_GONE | {"at": None}]
)
def test_an_event_that_cannot_be_read_is_buried_and_the_next_one_is_applied(
    given, raw_tubes, store, post_id, payload
):
    store.like(post_id, "bob", NOW, LATER)
    raw_tubes.use(EVENTS_TUBE)
    raw_tubes.put(job(payload))
    raw_tubes.put(job({"kind": "post_deleted", "post_id": str(post_id), "at": "2026-01-01T00:00:00Z"}))

    with at_work(given, [workers.apply_events]):
        eventually(lambda: is_empty(raw_tubes, EVENTS_TUBE))

    assert store.count(post_id).count == 0
    raw_tubes.delete(raw_tubes.peek_buried())
