"""What the timelines service answers."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import greenstalk
import pytest
import server_processes
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.discovery import client as discovery
from common.discovery.client import ServiceClient
from common.tokens import Tokens
from tests.hung_server import hung_server
from tests.instances import directory_of, instance
from tests.polling import PATIENCE_SECONDS, eventually
from tests.timelines_service.conftest import Users
from timelines_service.app import create_app
from timelines_service.clients import UsersClient
from timelines_service.settings import TimelinesSettings

Headers = Callable[[str], dict[str, str]]
UNKNOWN = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"


def _write(client: TestClient, headers: dict[str, str], text: str = "Hello!") -> dict[str, Any]:
    post: dict[str, Any] = client.post("/posts", json={"text": text}, headers=headers).json()
    return post


def test_a_post_is_where_its_location_says(client: TestClient, as_user: Headers) -> None:
    written = client.post("/posts", json={"text": " Hello! "}, headers=as_user("alice"))
    post = written.json()

    assert (written.status_code, written.headers["Location"]) == (201, f"/posts/id/{post['id']}")
    assert client.get(written.headers["Location"]).json() == post
    assert (post["username"], post["text"], post["created_at"][-1]) == ("alice", "Hello!", "Z")


@pytest.mark.parametrize("text", ["", "   ", "x" * 281, "a\x00b", "\x1b[2J", 1, None])
@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_what_is_no_text_is_422(client: TestClient, as_user: Headers, path: str, text: object) -> None:
    assert client.post(path, json={"text": text}, headers=as_user("alice")).status_code == 422


@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_nobody_writes_in_anothers_name(client: TestClient, as_user: Headers, path: str) -> None:
    body = {"text": "Hello!", "username": "bobby"}

    assert client.post(path, json=body, headers=as_user("alice")).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/posts"), ("POST", "/posts/async"), ("GET", "/posts/home/alice")]
)
def test_without_a_users_token_it_is_401_or_403(
    client: TestClient, as_service: Headers, method: str, path: str
) -> None:
    assert client.request(method, path).status_code == 401
    assert client.request(method, path, headers=as_service("likes")).status_code == 403


def test_the_same_key_answers_with_the_first_post(client: TestClient, as_user: Headers) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "once"}
    answers = [client.post("/posts", json={"text": "Hello!"}, headers=headers) for _ in range(2)]

    assert [response.status_code for response in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


def test_the_same_key_for_another_text_is_422(client: TestClient, as_user: Headers) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "once"}
    client.post("/posts", json={"text": "Hello!"}, headers=headers)
    other = client.post("/posts", json={"text": "Bye!"}, headers=headers)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert [error["pointer"] for error in other.json()["errors"]] == ["#/idempotency-key"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a b"])
def test_a_malformed_key_is_422(client: TestClient, as_user: Headers, key: str) -> None:
    headers = as_user("alice") | {"Idempotency-Key": key}

    assert client.post("/posts", json={"text": "Hello!"}, headers=headers).status_code == 422


def test_a_queued_post_is_a_job_with_all_that_the_worker_needs(
    client: TestClient, as_user: Headers, tube: greenstalk.Client[bytes]
) -> None:
    headers = as_user("alice") | {"X-Request-ID": "mine"}
    queued = client.post("/posts/async", json={"text": "Later!"}, headers=headers)
    job = json.loads(tube.reserve(timeout=1).body)

    assert (queued.status_code, queued.json()["status"]) == (202, "queued")
    assert queued.headers["Location"] == f"/posts/id/{queued.json()['id']}"
    assert (job["version"], job["request_id"]) == (1, "mine")
    assert (job["payload"]["id"], job["payload"]["username"]) == (queued.json()["id"], "alice")


def test_without_beanstalkd_only_queued_posts_are_refused(
    settings: TimelinesSettings, store, as_user: Headers
) -> None:
    away = settings.model_copy(update={"beanstalkd_port": server_processes.free_port()})
    with TestClient(create_app(away)) as client:
        client.app.state.store.prepare()
        queued = client.post("/posts/async", json={"text": "Later!"}, headers=as_user("alice"))

        assert (queued.status_code, queued.json()["code"]) == (503, "beanstalkd_unavailable")
        assert queued.headers["Retry-After"]
        assert client.post("/posts", json={"text": "Now!"}, headers=as_user("alice")).status_code == 201
        eventually(lambda: client.get("/health").json()["status"] == "degraded")


def test_without_postgres_it_is_503(settings: TimelinesSettings, as_user: Headers) -> None:
    away = settings.model_copy(update={"db_port": server_processes.free_port()})
    with TestClient(create_app(away)) as client:
        for path in ("/posts", f"/posts/id/{UNKNOWN}", "/posts/alice"):
            assert client.get(path).json()["code"] == "postgres_unavailable"
        assert client.get("/health").json()["checks"] == {"postgres": "unavailable", "beanstalkd": "ok"}


def test_an_unknown_post_is_404(client: TestClient) -> None:
    assert client.get(f"/posts/id/{UNKNOWN}").json()["code"] == "post_not_found"


@pytest.mark.parametrize(
    "path", ["/posts/id/1", "/posts?limit=0", "/posts?limit=101", "/posts?before=1", "/posts/a"]
)
def test_a_malformed_question_is_422(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 422


def test_a_page_links_to_the_next(client: TestClient, as_user: Headers) -> None:
    ids = [_write(client, as_user("alice"))["id"] for _ in range(3)][::-1]
    for path in ("/posts", "/posts/alice"):
        first = client.get(f"{path}?limit=2")

        assert [post["id"] for post in first.json()] == ids[:2]
        assert first.headers["Link"] == f'<{path}?limit=2&before={ids[1]}>; rel="next"'
        assert "Link" not in client.get(f"{path}?limit=3").headers


def test_a_user_without_posts_has_an_empty_timeline(client: TestClient, users: Users) -> None:
    users.followees["quiet"] = []

    assert client.get("/posts/quiet").json() == []


def test_an_unknown_user_has_no_timeline(client: TestClient) -> None:
    assert client.get("/posts/nobody").json()["code"] == "user_not_found"


def test_when_users_cannot_be_asked_an_empty_timeline_is_503(client: TestClient, users: Users) -> None:
    users.is_away = True
    response = client.get("/posts/nobody")

    assert (response.status_code, response.headers["Retry-After"]) == (503, "2")


def test_a_home_timeline_has_the_posts_of_followees_only(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    ids = [_write(client, as_user(name))["id"] for name in ("bobby", "carol", "bobby", "alice")]
    users.followees["alice"] = ["bobby"]
    home = client.get("/posts/home/alice", headers=as_user("alice")).json()

    assert [post["id"] for post in home] == [ids[2], ids[0]]


def test_a_new_follow_is_seen_at_once_and_an_old_list_costs_a_304(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    _write(client, as_user("bobby"))
    users.followees["alice"] = []
    lengths = []
    for followees in ([], [], ["bobby"], []):
        users.followees["alice"] = followees
        lengths.append(len(client.get("/posts/home/alice", headers=as_user("alice")).json()))

    assert lengths == [0, 0, 1, 0]
    assert users.statuses == [200, 304, 200, 200]


def test_anothers_home_timeline_is_403(client: TestClient, as_user: Headers) -> None:
    assert client.get("/posts/home/alice", headers=as_user("bobby")).status_code == 403


def test_a_home_timeline_of_nobody_is_404(client: TestClient, as_user: Headers) -> None:
    assert client.get("/posts/home/ghost", headers=as_user("ghost")).status_code == 404


def test_when_users_cannot_be_asked_a_home_timeline_is_503(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users.followees["alice"] = ["bobby"]
    client.get("/posts/home/alice", headers=as_user("alice"))
    users.is_away = True

    assert client.get("/posts/home/alice", headers=as_user("alice")).status_code == 503


def test_a_users_service_that_hangs_does_not_keep_others_from_reading(
    app: FastAPI, client: TestClient, as_user: Headers, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "TIMEOUT", dict.fromkeys(discovery.TIMEOUT, 2 * PATIENCE_SECONDS))
    monkeypatch.setattr(discovery, "DEADLINE_SECONDS", 2 * PATIENCE_SECONDS)
    post = _write(client, as_user("alice"))

    def status(path: str) -> int:
        return client.get(path, headers=as_user("alice")).status_code

    with ThreadPoolExecutor(60) as threads, hung_server() as port:
        calling = ServiceClient("users", directory_of(instance(port)), tokens, "timelines")
        app.state.timelines._users = UsersClient(calling)
        homes = [threads.submit(status, "/posts/home/alice") for _ in range(30)]
        reads = [threads.submit(status, f"/posts/id/{post['id']}") for _ in range(30)]

        assert {read.result(PATIENCE_SECONDS) for read in reads} == {200}
        assert not all(home.done() for home in homes)
    assert {home.result() for home in homes} == {503}
    calling.close()


def test_a_home_timeline_goes_on_after_its_last_post(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    ids = [_write(client, as_user("bobby"))["id"] for _ in range(3)][::-1]
    users.followees["alice"] = ["bobby"]
    first = client.get("/posts/home/alice?limit=2", headers=as_user("alice"))
    rest = client.get(first.links["next"]["url"], headers=as_user("alice"))

    assert [post["id"] for post in first.json() + rest.json()] == ids
    assert "Link" not in rest.headers


@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_a_bad_token_is_401_whatever_the_body_says(client: TestClient, path: str) -> None:
    response = client.post(path, content=b"{", headers={"Authorization": "Bearer forged"})

    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("subject", ["", "x", "Home", "home", "a b", "a\x00bc", "x" * 31])
def test_a_token_of_what_is_no_name_is_401(client: TestClient, as_user: Headers, subject: str) -> None:
    assert client.post("/posts", json={"text": "Hello!"}, headers=as_user(subject)).status_code == 401


@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_a_body_that_is_no_json_is_415_and_one_too_large_413(
    client: TestClient, as_user: Headers, path: str
) -> None:
    form = client.post(path, data={"text": "Hello!"}, headers=as_user("alice"))
    huge = client.post(path, json={"text": "x" * 70_000}, headers=as_user("alice"))

    assert [form.status_code, huge.status_code] == [415, 413]


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/posts"), ("POST", "/posts/alice")])
def test_another_method_is_405(client: TestClient, as_user: Headers, method: str, path: str) -> None:
    assert client.request(method, path, headers=as_user("alice")).status_code == 405


def test_a_name_is_the_same_in_capitals(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"))

    assert client.get("/posts/ALICE").json() == [post]


def test_a_queued_post_takes_no_key(
    client: TestClient, as_user: Headers, tube: greenstalk.Client[bytes]
) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "once"}
    ids = {client.post("/posts/async", json={"text": "Hi!"}, headers=headers).json()["id"] for _ in "ab"}

    assert len(ids) == 2


def test_with_all_it_needs_it_is_well(client: TestClient) -> None:
    well = {"postgres": "ok", "beanstalkd": "ok"}

    eventually(lambda: client.get("/health").json()["checks"] == well)
