"""A timelines service, and its worker, on a PostgreSQL that responds but cannot serve."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from threading import Event, Thread

import greenstalk
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.fields import new_id
from tests import tubes
from tests.polling import PATIENCE_SECONDS, eventually
from tests.postgres_operator import end_sessions, operate
from timelines_service import workers
from timelines_service.models import TUBE, AcceptedPost
from timelines_service.post_query import Page
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore

DATABASE = "test_timelines"


@contextmanager
def read_only(port: int) -> Iterator[None]:
    operate(port, f"ALTER DATABASE {DATABASE} SET default_transaction_read_only = on")
    end_sessions(port, DATABASE)
    try:
        yield
    finally:
        operate(port, f"ALTER DATABASE {DATABASE} RESET default_transaction_read_only")


@contextmanager
def failing_inserts(port: int, sqlstate: str) -> Iterator[None]:
    """Each new post meets what a server with a full disk says, for example."""
    run = partial(operate, port, database=DATABASE)
    run(
        "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'said' USING ERRCODE = '{sqlstate}'; END $$"
    )
    run("CREATE TRIGGER fail BEFORE INSERT ON posts FOR EACH ROW EXECUTE FUNCTION fail()")
    try:
        yield
    finally:
        run("DROP TRIGGER fail ON posts")


def _damage(port: int, statement: str) -> None:
    """Run it in the service's database, or beside that when it drops the database itself."""
    operate(port, statement, "postgres" if "DATABASE" in statement else DATABASE)


@pytest.fixture
def post(client: TestClient, as_user: Callable[[str], dict[str, str]]) -> Callable[[], tuple[int, str]]:
    """Write a post; returns the status and `Retry-After`."""

    def post() -> tuple[int, str]:
        response = client.post("/posts", json={"text": "hello"}, headers=as_user("alice"))
        return response.status_code, response.headers.get("Retry-After", "")

    eventually(lambda: client.get("/health").status_code == 200)
    return post


def _reason(client: TestClient) -> str:
    health = client.get("/health")
    return health.json().get("reasons", {}).get("postgres", "") if health.status_code == 503 else ""


def test_a_read_only_server_takes_no_post_and_still_shows_them(
    client: TestClient, post, postgres: int
) -> None:
    assert post()[0] == 201
    with read_only(postgres):
        eventually(lambda: _reason(client) == "is read-only")

        assert post() == (503, "2")
        assert len(client.get("/posts").json()) == 1

    eventually(lambda: post()[0] == 201)
    eventually(lambda: client.get("/health").json()["status"] == "ok")


def test_what_a_ping_does_not_meet_makes_the_service_unavailable_for_a_moment(
    client: TestClient, post, postgres: int
) -> None:
    with failing_inserts(postgres, "53100"):
        assert post() == (503, "2")
        assert _reason(client) == "has a full disk: said (53100)"

    assert post()[0] == 201
    eventually(lambda: client.get("/health").json()["status"] == "ok")


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03", "57014"])
def test_what_passes_by_itself_leaves_the_service_healthy(
    client: TestClient, post, postgres: int, sqlstate: str
) -> None:
    with failing_inserts(postgres, sqlstate):
        assert post() == (503, "2")
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE posts",
        "DROP TABLE posts, idempotency_keys, timelines_service_version",
        "DROP SCHEMA public CASCADE",
        f"DROP DATABASE {DATABASE} WITH (FORCE)",
    ],
)
def test_what_is_lost_is_made_again_without_a_restart(post, postgres: int, damage: str) -> None:
    _damage(postgres, damage)
    status, retry_after = post()

    assert (status, retry_after) == (503, "2")
    eventually(lambda: post()[0] == 201)


@pytest.fixture
def working(settings: TimelinesSettings, app: FastAPI) -> Iterator[None]:
    """A worker, until the test is over."""
    stop, users = Event(), app.state.timelines._users
    with closing(TimelinesStore.connect(settings.database)) as own_store:
        thread = Thread(target=partial(workers.store_posts, settings, own_store, users, stop))
        thread.start()
        yield
        stop.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def _stats(tube: greenstalk.Client[bytes]) -> dict[str, int]:
    return tube.stats_tube(TUBE)


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("fault", [read_only, partial(failing_inserts, sqlstate="XX000")])
def test_a_post_that_was_accepted_waits_as_long_as_the_outage(
    client: TestClient, tube: greenstalk.Client[bytes], postgres: int, as_user, fault
) -> None:
    def accept() -> str:
        accepted = client.post("/posts/async", json={"text": "hello"}, headers=as_user("alice"))
        assert accepted.status_code == 202
        return f"/posts/id/{accepted.json()['id']}"

    # A worker that has not begun by then would not even reserve the job.
    before = accept()
    eventually(lambda: client.get(before).status_code == 200)
    with fault(postgres):
        during = accept()
        eventually(lambda: _stats(tube)["current-jobs-delayed"] == 1)
        assert _stats(tube)["current-jobs-buried"] == 0

    eventually(lambda: client.get(during).status_code == 200)


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("damage", ["DROP TABLE posts", f"DROP DATABASE {DATABASE} WITH (FORCE)"])
def test_a_worker_alone_makes_again_what_is_lost(
    store: TimelinesStore, tube: greenstalk.Client[bytes], postgres: int, damage: str
) -> None:
    store.close()
    _damage(postgres, damage)
    post = AcceptedPost(id=new_id(), username="alice", text="Later!", created_at=datetime.now(UTC))
    tube.put(tubes.job(post.model_dump(mode="json")))

    eventually(lambda: _is_stored(store, post))


def _is_stored(store: TimelinesStore, post: AcceptedPost) -> bool:
    try:
        return [found.id for found in store.newest(Page(1))] == [post.id]
    except store.outages:
        return False
