"""The timelines worker as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import greenstalk
import pytest
import server_processes
from sqlalchemy import text

from common.fields import new_id
from common.postgres.schema import SchemaNotReady
from tests import tubes
from tests.own_server import Own
from tests.polling import PATIENCE_SECONDS, eventually
from tests.tubes import is_empty
from timelines_service import events
from timelines_service.models import TUBE, Post
from timelines_service.post_query import Page
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore

ROOT = Path(__file__).parents[2]
Process = subprocess.Popen[bytes]
POSTGRES = partial(server_processes.postgres, durable=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the last worker said."""
    return tmp_path / "timelines_worker.log"


@pytest.fixture
def start(settings: TimelinesSettings, log: Path) -> Iterator[Callable[..., Process]]:
    """Start a worker, with these variables; one that is killed at a step, if that is named."""
    workers: list[Process] = []

    def start(*crash: str, **variables: object) -> Process:
        environment = os.environ | {
            "DB_PORT": str(settings.db_port),
            "TIMELINES_DB_NAME": settings.timelines_db_name,
            "BEANSTALKD_PORT": str(settings.beanstalkd_port),
            **{name.upper(): str(value) for name, value in variables.items()},
        }
        how = ["-m", "tests.crash_at", *crash] if crash else ["-m"]
        command = [sys.executable, *how, "timelines_service.workers"]
        with log.open("wb") as output:
            workers.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


def _job(post: Post) -> bytes:
    return tubes.job(post.model_dump(mode="json"))


def _post() -> Post:
    return Post(id=new_id(), username="alice", text="Later!", created_at=datetime.now(UTC))


@pytest.mark.starts
def test_queued_posts_are_stored_once_however_often_they_come(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes]
) -> None:
    posts = [_post() for _ in range(150)]
    for post in posts + posts:
        tube.put(_job(post))
    start()

    eventually(lambda: len(store.newest(Page(1000))) == 150 and is_empty(tube, TUBE))

    assert store.newest(Page(1000)) == posts[::-1]


@pytest.mark.starts
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_post_whose_time_could_not_be_read_again_is_buried(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes], at: str
) -> None:
    job = json.loads(_job(_post()))
    job["payload"]["created_at"] = at
    tube.put(json.dumps(job).encode())
    start()

    eventually(lambda: tube.stats_tube(TUBE)["current-jobs-buried"] == 1)
    tube.delete(tube.peek_buried())
    assert store.newest(Page(10)) == []


QUEUE, STORE = "common.jobs.queue:JobQueue", "timelines_service.store:TimelinesStore"


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (f"{QUEUE}.reserve", "after"),
        (f"{STORE}.add_missing", "after"),
        (f"{QUEUE}.delete", "before"),
        (f"{QUEUE}.delete", "after"),
    ],
)
def test_a_worker_that_is_killed_loses_and_doubles_nothing(
    start: Callable[..., Process],
    store: TimelinesStore,
    tube: greenstalk.Client[bytes],
    step: str,
    moment: str,
) -> None:
    posts = [_post() for _ in range(10)]
    for post in posts:
        tube.put(_job(post))
    assert start(step, moment).wait(PATIENCE_SECONDS) == -signal.SIGKILL

    start()
    eventually(lambda: is_empty(tube, TUBE))

    assert store.newest(Page(100)) == posts[::-1]


@pytest.fixture
def event_tube(beanstalkd_port: int) -> Iterator[greenstalk.Client[bytes]]:
    """A client on the tube of events, which is empty at first."""
    address, name = ("127.0.0.1", beanstalkd_port), events.TUBE
    with greenstalk.Client(address, encoding=None, use=name, watch=name) as client:
        tubes.clear(client)
        yield client


def _like(post: Post, kind: str, second: int) -> bytes:
    at = f"2026-01-01T00:00:{second:02}Z"
    return tubes.job({"kind": kind, "username": "bobby", "post_id": str(post.id), "at": at})


def _told(store: TimelinesStore) -> list[tuple[str, str]]:
    return [(one.kind, one.actor) for one in store.inbox.page("alice", Page(100), [], [])]


@pytest.mark.kills
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (f"{QUEUE}.reserve", "after"),
        ("timelines_service.events:Events.apply", "before"),
        ("timelines_service.events:Events.apply", "after"),
        (f"{QUEUE}.delete", "before"),
    ],
)
def test_an_event_in_the_hands_of_a_worker_that_is_killed_is_told_once(
    start: Callable[..., Process],
    store: TimelinesStore,
    event_tube: greenstalk.Client[bytes],
    step: str,
    moment: str,
) -> None:
    post = _post()
    store.add(post)
    event_tube.put(_like(post, "liked", 1))
    assert start(step, moment).wait(PATIENCE_SECONDS) == -signal.SIGKILL

    start()
    eventually(lambda: is_empty(event_tube, events.TUBE))

    assert _told(store) == [("like", "bobby")]


@pytest.mark.starts
def test_an_event_that_cannot_be_read_is_buried_and_the_next_is_applied(
    start: Callable[..., Process], store: TimelinesStore, event_tube: greenstalk.Client[bytes]
) -> None:
    post = _post()
    store.add(post)
    event_tube.put(tubes.job({"kind": "poked", "username": "bobby"}))
    event_tube.put(_like(post, "liked", 1))
    start()

    eventually(lambda: _told(store) == [("like", "bobby")])
    eventually(lambda: event_tube.stats_tube(events.TUBE)["current-jobs-buried"] == 1)
    event_tube.delete(event_tube.peek_buried())


@pytest.mark.starts
def test_two_workers_store_every_post_once(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes]
) -> None:
    posts = [_post() for _ in range(400)]
    start()
    start()
    for post in posts + posts:
        tube.put(_job(post))

    eventually(lambda: len(store.newest(Page(1000))) == 400 and is_empty(tube, TUBE))

    assert store.newest(Page(1000)) == posts[::-1]


@pytest.mark.kills
def test_a_worker_that_is_stopped_in_the_middle_of_a_batch_ends_and_keeps_no_job(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes]
) -> None:
    posts = [_post() for _ in range(100)]
    for post in posts:
        tube.put(_job(post))
    with store._database.transaction() as connection:
        connection.execute(text("LOCK TABLE posts"))
        worker = start()
        eventually(lambda: tube.stats_tube(TUBE)["current-jobs-reserved"] == 100)
        worker.send_signal(signal.SIGTERM)

        assert worker.wait(PATIENCE_SECONDS) == 0
        assert tube.stats_tube(TUBE)["current-jobs-reserved"] == 0

    start()
    eventually(lambda: is_empty(tube, TUBE))
    assert store.newest(Page(1000)) == posts[::-1]


JUNK = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b'{"version": 2}',
    b'{"version": 1, "request_id": "r", "payload": {}}',
    b'{"version": 1, "request_id": "r", "traceparent": "", "payload": {"post_id": 1}}',
    b"x" * 65535,
    b"[" * 60000,
]


@pytest.mark.starts
def test_junk_is_buried_with_its_reason_and_the_rest_of_its_batch_stored(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes], log: Path
) -> None:
    tube.put(_job(_post()))
    junk = {tube.put(body): body for body in JUNK}
    tube.put(_job(_post()))
    start()

    eventually(lambda: len(store.newest(Page(9))) == 2 and is_empty(tube, TUBE))

    buried = {}
    for _ in junk:
        job = tube.peek_buried()
        tube.delete(job)
        buried[job.id] = job.body
    assert buried == junk
    assert all(f"job {number} buried: it cannot be read" in log.read_text() for number in junk)


def _is_prepared(store: TimelinesStore) -> bool:
    """False while the worker is at it, on a busy machine for longer than a store waits."""
    with suppress(SchemaNotReady):
        store.prepare()
        return True
    return False


@pytest.mark.kills
def test_a_worker_that_starts_before_its_stores_works_once_they_are_there(
    start: Callable[..., Process], own: Own
) -> None:
    postgres, beanstalkd = own(POSTGRES), own(server_processes.beanstalkd)
    start(db_port=postgres.port, beanstalkd_port=beanstalkd.port)
    beanstalkd.start()
    postgres.start()
    settings = TimelinesSettings(_env_file=None, db_port=postgres.port, timelines_db_name="test_timelines")
    with closing(TimelinesStore.connect(settings.database)) as store:
        eventually(lambda: _is_prepared(store))
        with greenstalk.Client(("127.0.0.1", beanstalkd.port), encoding=None, use=TUBE) as client:
            client.put(_job(_post()))

        eventually(lambda: store.newest(Page(1)))


@pytest.mark.kills
def test_a_post_accepted_while_postgres_is_away_is_stored_when_it_is_back(
    start: Callable[..., Process],
    own: Own,
    settings: TimelinesSettings,
    tube: greenstalk.Client[bytes],
) -> None:
    postgres = own(POSTGRES)
    postgres.start()
    start(db_port=postgres.port)
    with closing(
        TimelinesStore.connect(settings.model_copy(update={"db_port": postgres.port}).database)
    ) as store:
        eventually(lambda: _is_prepared(store))
        tube.put(_job(_post()))
        eventually(lambda: store.newest(Page(1)))
        store.close()
        postgres.stop()
        lost = _post()
        tube.put(_job(lost))
        eventually(lambda: tube.stats_tube(TUBE)["current-jobs-delayed"] == 1)
        postgres.start()

        assert eventually(lambda: store.newest(Page(2))[0] == lost)


@pytest.mark.kills
def test_a_worker_ends_on_a_signal(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes]
) -> None:
    worker = start()
    tube.put(_job(_post()))
    eventually(lambda: store.newest(Page(1)))
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(PATIENCE_SECONDS) == 0


def test_a_job_of_the_last_version_is_stored(
    start: Callable[..., Process], store: TimelinesStore, tube: greenstalk.Client[bytes]
) -> None:
    post = _post()
    tube.put(tubes.job(post.model_dump(mode="json", include={"id", "username", "text", "created_at"})))
    start()

    assert eventually(lambda: store.newest(Page(9))) == [post]


def test_what_a_deleted_post_leaves_is_swept_away(
    start: Callable[..., Process], store: TimelinesStore
) -> None:
    post = store.add(_post())
    store.reposts.add(post.id, "bobby")
    store.deletions.delete(post.id, "alice")
    start()

    eventually(lambda: not store._database.rows(text("SELECT FROM posts"), {}))


def test_the_tags_of_a_post_of_the_last_version_are_found(
    start: Callable[..., Process], store: TimelinesStore
) -> None:
    add = text("INSERT INTO posts (id, username, text, created_at) VALUES (:id, :username, :text, now())")
    store._database.rows(add, {"id": new_id(), "username": "alice", "text": "Some #tea?"})
    start()

    [post] = eventually(lambda: store.tags.posts("tea", Page(9), None))
    assert post.tags == ["tea"]
