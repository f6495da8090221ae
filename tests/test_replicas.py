"""Reads from a streaming standby: which ones may be a moment old, and what its bad days cost."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
import server_processes
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from common.api.auth import require_subject
from common.api.dependencies import calls
from common.api.routing import MAY_BE_STALE
from common.postgres import replica as module
from common.postgres.database import REPLICA_DEADLINE_SECONDS, Database
from common.postgres.url import database_url
from common.settings import PostgresSettings
from common.staleness import may_be_stale
from tests.own_server import OwnServer
from tests.polling import PATIENCE_SECONDS, eventually
from tests.postgres_operator import configure, operate
from tests.scrape import value
from timelines_service.app import create_app as create_timelines
from timelines_service.post_query import Page
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore
from users_service.app import create_app as create_users
from users_service.models import NewUser
from users_service.settings import UsersSettings

pytestmark = pytest.mark.kills

AsUser = Callable[[str], dict[str, str]]

numbers = count()


class Pair(NamedTuple):
    """A primary and its standby, which stay for all tests of this module."""

    primary: OwnServer
    standby: OwnServer


def _postgres(data: Path, name: str, primary: int | None = None) -> OwnServer:
    kind = partial(server_processes.postgres, durable=False, primary=primary)
    return OwnServer(kind, data / f"{name}-{next(numbers)}" / "data")


@pytest.fixture(scope="module")
def servers(data: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        primary = _postgres(data, "primary")
        stack.callback(primary.stop)
        primary.start()
        configure(primary.port, "SET wal_retrieve_retry_interval = '100ms'")
        standby = _postgres(data, "standby", primary.port)
        stack.callback(standby.stop)
        standby.start()
        yield Pair(primary, standby)


def _url(port: int, database: str) -> str:
    return f"postgresql://postgres:postgres@127.0.0.1:{port}/{database}"


def _timelines(primary_url: str, replica_url: str | None) -> FastAPI:
    settings = TimelinesSettings(
        _env_file=None,
        registry_url=None,
        timelines_database_url=primary_url,
        timelines_read_database_url=replica_url,
        beanstalkd_port=server_processes.free_port(),
    )
    return create_timelines(settings)


def _users(servers: Pair) -> FastAPI:
    settings = UsersSettings(
        _env_file=None,
        registry_url=None,
        users_database_url=_url(servers.primary.port, "replicated_users"),
        users_read_database_url=_url(servers.standby.port, "replicated_users"),
        beanstalkd_port=server_processes.free_port(),
    )
    return create_users(settings)


@pytest.fixture(scope="module")
def clients(servers: Pair) -> Iterator[tuple[TestClient, TestClient]]:
    """Of the two services, ready to serve."""
    urls = (_url(server.port, "replicated_timelines") for server in servers)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        # A busy machine is no standby that hangs.
        patch.setattr("common.postgres.database.REPLICA_DEADLINE_SECONDS", PATIENCE_SECONDS)
        # One after the other: Alembic migrates one database of a process at a time.
        timelines, users = (
            _ready(stack.enter_context(TestClient(app))) for app in (_timelines(*urls), _users(servers))
        )
        yield timelines, users


def _ready(client: TestClient) -> TestClient:
    eventually(lambda: client.get("/health").status_code == 200)
    return client


def _standby(client: TestClient) -> Database:
    found: Database = client.app.state.store._database._standby
    return found


@pytest.fixture
def pair(servers: Pair, clients: tuple[TestClient, TestClient]) -> Iterator[Pair]:
    """The two, of which the standby follows: after the test as before."""
    _await_replicas(clients)
    yield servers
    servers.standby.resume()
    operate(servers.standby.port, "SELECT pg_wal_replay_resume()")
    _await_replicas(clients)


def _await_replicas(clients: tuple[TestClient, TestClient]) -> None:
    for client in clients:
        eventually(lambda client=client: client.app.state.store.replica.warning is None)


@pytest.fixture
def timelines(pair: Pair, clients: tuple[TestClient, TestClient]) -> TestClient:
    return clients[0]


@pytest.fixture
def users(pair: Pair, clients: tuple[TestClient, TestClient]) -> TestClient:
    return clients[1]


@pytest.fixture
def lag_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LAG_SECONDS", 3600)


@pytest.fixture
def author() -> str:
    return f"author{next(numbers)}"


def _post(client: TestClient, headers: dict[str, str], text: str) -> str:
    written = client.post("/posts", json={"text": text}, headers=headers)
    assert written.status_code == 201, written.text
    return str(written.json()["id"])


def _ask(server: OwnServer, statement: str) -> Any:
    with closing(psycopg2.connect(_url(server.port, "postgres"))) as connection:
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchone()[0]


def _await_all(primary: OwnServer, standby: OwnServer) -> None:
    written = _ask(primary, "SELECT pg_current_wal_insert_lsn()")
    eventually(lambda: _ask(standby, f"SELECT pg_last_wal_replay_lsn() >= '{written}'"))


def _pause(pair: Pair) -> None:
    """Let the standby have all that is written by now, and nothing more."""
    _await_all(*pair)
    operate(pair.standby.port, "SELECT pg_wal_replay_pause()")
    eventually(lambda: _ask(pair.standby, "SELECT pg_get_wal_replay_pause_state() = 'paused'"))


@pytest.mark.usefixtures("lag_does_not_matter")
@pytest.mark.parametrize("path", ["/posts/{author}", "/posts", "/tags/{author}", "/posts/id/{first}/replies"])
def test_a_list_may_be_a_moment_old_but_not_for_its_writer(
    pair: Pair, timelines: TestClient, as_user: AsUser, author: str, path: str
) -> None:
    def ids(**options: object) -> list[str]:
        found = timelines.get(path.format(author=author, first=first), **options)
        return [post["id"] for post in found.json()]

    def write(text: str) -> str:
        reply = {"text": text, "in_reply_to": first}
        return str(timelines.post("/posts", json=reply, headers=as_user(author)).json()["id"])

    first = _post(timelines, as_user(author), f"#{author} begins")
    older = write(f"#{author} goes on")
    _pause(pair)
    newer = write(f"#{author} ends")

    assert ids()[0] == older
    assert ids(headers=as_user(author))[:2] == [newer, older]


@pytest.mark.usefixtures("lag_does_not_matter")
def test_newer_posts_are_looked_for_where_they_are_written(
    pair: Pair, timelines: TestClient, as_user: AsUser, author: str
) -> None:
    _post(timelines, as_user(author), "older")
    _pause(pair)
    newer = _post(timelines, as_user(author), "newer")

    link = timelines.get(f"/posts/{author}").links["prev"]["url"]

    # A standby cannot say which transactions it has not seen.
    assert "seen=" not in link
    assert [post["id"] for post in timelines.get(link).json()] == [newer]


@pytest.mark.usefixtures("lag_does_not_matter")
def test_an_edit_is_seen_at_once_by_clients_with_a_token(
    pair: Pair, timelines: TestClient, as_user: AsUser, author: str
) -> None:
    path = f"/posts/id/{_post(timelines, as_user(author), 'before')}"
    _pause(pair)

    edited = timelines.patch(path, json={"text": "after"}, headers=as_user(author))

    assert edited.json()["text"] == "after"
    assert timelines.get(path).json()["text"] == "before"
    assert timelines.get(path, headers=as_user(author)).json()["text"] == "after"
    assert timelines.get(path, headers=as_user("bobby")).json()["text"] == "after"


@pytest.mark.usefixtures("lag_does_not_matter")
def test_what_is_new_is_found_by_everybody_at_its_address(
    pair: Pair, timelines: TestClient, users: TestClient, as_user: AsUser, author: str
) -> None:
    _pause(pair)
    post_id = _post(timelines, as_user(author), "new")
    users.app.state.store.register(NewUser(username=author, password="correct horse"), "no hash")

    assert timelines.get(f"/posts/id/{post_id}").json()["text"] == "new"
    assert timelines.get(f"/posts/{author}").json()[0]["id"] == post_id
    assert users.get(f"/users/{author}").status_code == 200


@pytest.mark.usefixtures("lag_does_not_matter")
def test_a_changed_profile_is_seen_at_once_by_clients_with_a_token(
    pair: Pair, users: TestClient, as_user: AsUser, author: str
) -> None:
    users.app.state.store.register(NewUser(username=author, password="correct horse"), "no hash")
    _pause(pair)

    users.patch(f"/users/{author}", json={"display_name": "New"}, headers=as_user(author))

    def name(**options: object) -> str:
        return str(users.get(f"/users/{author}", **options).json()["display_name"])

    assert name() == author
    assert name(headers=as_user(author)) == name(headers=as_user("bobby")) == "New"


def test_a_standby_that_lags_is_not_read(
    pair: Pair, timelines: TestClient, as_user: AsUser, author: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/posts/id/{_post(timelines, as_user(author), 'before')}"
    _pause(pair)
    timelines.patch(path, json={"text": "after"}, headers=as_user(author))
    monkeypatch.setattr(module, "MAX_LAG_SECONDS", 1)

    # A busy machine compares late: what the standby had before the change may count once more.
    health = eventually(
        lambda: _lagging(timelines) if timelines.get(path).json()["text"] == "after" else None
    )

    assert health["checks"]["postgres"] == "ok"


def _lagging(client: TestClient) -> dict[str, Any] | None:
    """The health of a service, once it says that its replica lags."""
    warning = {"postgres": "the replica is unavailable, or lags: the primary is read"}
    health: dict[str, Any] = client.get("/health").json()
    is_told = health.get("warnings") == warning and value("microblog_replica_lag_seconds") > 1
    return health if is_told else None


def test_a_killed_standby_costs_no_read(
    pair: Pair, timelines: TestClient, as_user: AsUser, author: str
) -> None:
    path = f"/posts/id/{_post(timelines, as_user(author), 'hello')}"
    pair.standby.end_by(signal.SIGQUIT)
    statuses = {timelines.get(path).status_code for _ in range(20)}
    pair.standby.start()

    assert statuses == {200}


@contextmanager
def _hung(server: OwnServer) -> Iterator[None]:
    """Stop the server, and each of its sessions."""
    sessions = "SELECT array_agg(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    pids = _ask(server, f"{sessions} AND pid <> pg_backend_pid()") or []
    server.hang()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        server.resume()


@pytest.mark.usefixtures("lag_does_not_matter")
def test_a_hung_standby_holds_up_one_read_at_most(
    pair: Pair, timelines: TestClient, as_user: AsUser, author: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/posts/id/{_post(timelines, as_user(author), 'hello')}"
    reads: list[object] = []
    replica = timelines.app.state.store.replica
    ask = replica._standby

    def counted(statement: object, values: object) -> object:
        if statement is not module.HAS_REPLAYED:
            reads.append(statement)
        return ask(statement, values)

    monkeypatch.setattr(_standby(timelines), "_deadline_seconds", REPLICA_DEADLINE_SECONDS)
    monkeypatch.setattr(replica, "_standby", counted)
    with _hung(pair.standby):
        statuses = {timelines.get(path).status_code for _ in range(10)}

    assert statuses == {200}
    assert len(reads) <= 1


@pytest.fixture
def without_token() -> Iterator[None]:
    """As in a request that may be answered from the replica."""
    token = may_be_stale.set(True)
    yield
    may_be_stale.reset(token)


def test_a_standby_that_lacks_the_tables_is_not_read(
    pair: Pair, timelines: TestClient, without_token: None
) -> None:
    replica_url = _url(pair.standby.port, "postgres")
    with closing(_store(pair, replica_url)) as store:
        eventually(lambda: store.replica._compare() or store.replica.warning is None)

        assert store.newest(Page(1, None, None)) == timelines.app.state.store.newest(Page(1, None, None))


def test_what_is_no_standby_is_not_read(pair: Pair) -> None:
    with closing(_store(pair, _url(pair.primary.port, "replicated_timelines"))) as store:
        store.replica._compare()

        assert store.replica.warning


def test_a_standby_that_is_promoted_is_left_for_another(pair: Pair, data: Path) -> None:
    promoted = _postgres(data, "promoted", pair.primary.port)
    promoted.start()
    hosts = f"127.0.0.1:{promoted.port},127.0.0.1:{pair.standby.port}"
    url = f"postgresql://postgres:postgres@{hosts}/replicated_timelines?target_session_attrs=standby"
    with ExitStack() as stack:
        stack.callback(promoted.stop)
        store = stack.enter_context(closing(_store(pair, url)))
        eventually(lambda: store.replica._compare() or store.replica.warning is None)
        operate(promoted.port, "SELECT pg_promote()")
        at = time.monotonic()

        eventually(lambda: store.replica._compare() or store.replica.lag_seconds < time.monotonic() - at)


def _store(pair: Pair, replica_url: str) -> TimelinesStore:
    primary_url = _url(pair.primary.port, "replicated_timelines")
    standby = database_url(PostgresSettings(_env_file=None), replica_url, "")
    store = TimelinesStore.connect(make_url(primary_url), standby)
    store.prepare()
    return store


def test_after_a_failover_the_standby_is_written_to(pair: Pair, data: Path, as_user: AsUser) -> None:
    successor = _postgres(data, "successor", pair.primary.port)
    successor.start()
    hosts = f"127.0.0.1:{pair.primary.port},127.0.0.1:{successor.port}"
    url = f"postgresql://postgres:postgres@{hosts}/replicated_timelines?target_session_attrs=read-write"
    with TestClient(_timelines(url, None)) as client:
        eventually(lambda: client.get("/health").status_code == 200)
        path = f"/posts/id/{_post(client, as_user('alice'), 'before')}"
        _await_all(pair.primary, successor)
        pair.primary.end_by(signal.SIGQUIT)
        try:
            operate(successor.port, "SELECT pg_promote()")
            new = {"text": "after"}
            eventually(lambda: client.post("/posts", json=new, headers=as_user("alice")).is_success)
            found = client.get(path).status_code
        finally:
            pair.primary.start()
            successor.stop()

    assert found == 200


MAY_BE_OLD = {
    "/posts", "/posts/counts", "/posts/id/{post_id}", "/posts/id/{post_id}/context",
    "/posts/id/{post_id}/replies", "/posts/id/{post_id}/reposters", "/posts/id/{post_id}/versions",
    "/posts/{username}", "/search/users", "/tags", "/tags/{tag}", "/users",
    "/users/{username}", "/users/{username}/followees", "/users/{username}/followers",
}  # fmt: skip


def test_only_public_reads_may_be_a_moment_old() -> None:
    nowhere = _url(server_processes.free_port(), "nowhere")
    apps = (_timelines(nowhere, None), create_users(UsersSettings(_env_file=None, registry_url=None)))
    routes = [route for app in apps for route in app.routes if isinstance(route, APIRoute)]
    old = [route for route in routes if MAY_BE_STALE.dependency in calls(route.dependant)]

    assert {route.path for route in old} == MAY_BE_OLD
    assert all(route.methods == {"GET"} for route in old)
    assert not any(require_subject in calls(route.dependant) for route in old)
