"""What the timelines service answers."""

import json
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import greenstalk
import pytest
import server_processes
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.discovery import client as discovery
from common.discovery.client import ServiceClient
from common.fields import new_id
from common.tokens import Tokens
from tests.hung_server import hung_server
from tests.instances import directory_of, instance
from tests.own_server import Own
from tests.pages import pages
from tests.polling import PATIENCE_SECONDS, eventually
from tests.timelines_service.conftest import Users
from timelines_service.app import create_app
from timelines_service.clients import UsersClient
from timelines_service.models import AcceptedPost
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


@pytest.mark.parametrize(
    "text", ["", "   ", "\u200b", " \u3164 \u2800", "x" * 281, "a\x00b", "\x1b[2J", 1, None]
)
@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_what_is_no_text_is_422(client: TestClient, as_user: Headers, path: str, text: object) -> None:
    assert client.post(path, json={"text": text}, headers=as_user("alice")).status_code == 422


@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_a_post_of_the_largest_texts_is_taken(client: TestClient, as_user: Headers, path: str) -> None:
    largest = "\u20dd".join("x" * 280) + "\u20dd" * 993
    body = json.dumps({"text": largest, "warning": "x" + "\u0301" * 2047})

    written = client.post(path, content=body, headers=as_user("alice") | {"Content-Type": "application/json"})

    assert written.is_success, written.text


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


def test_a_beanstalkd_that_drains_refuses_queued_posts_and_health_says_why(
    settings: TimelinesSettings, own: Own, as_user: Headers
) -> None:
    beanstalkd = own(server_processes.beanstalkd)
    beanstalkd.start()
    with TestClient(create_app(settings.model_copy(update={"beanstalkd_port": beanstalkd.port}))) as client:
        beanstalkd.signal(signal.SIGUSR1)
        queued = client.post("/posts/async", json={"text": "Later!"}, headers=as_user("alice"))

        assert (queued.status_code, queued.json()["code"]) == (503, "beanstalkd_unavailable")
        health = eventually(lambda: client.get("/health").json().get("reasons"))
        assert health["beanstalkd"] == "is in drain mode"


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
        older, newer = first.headers["Link"].split(", ")
        assert older == f'<{path}?limit=2&before={ids[1]}>; rel="next"'
        assert re.fullmatch(rf'<{path}\?limit=2&after={ids[0]}&seen=[^>]+>; rel="prev"', newer)
        assert "next" not in client.get(f"{path}?limit=3").links


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
    assert "next" not in rest.links


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


def _reply(client: TestClient, headers: dict[str, str], to: str, text: str = "Indeed.") -> dict[str, Any]:
    reply: dict[str, Any] = client.post(
        "/posts", json={"text": text, "in_reply_to": to}, headers=headers
    ).json()
    return reply


def test_a_post_says_all_of_itself(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"))

    assert {name: post[name] for name in post.keys() - {"id", "created_at"}} == {
        "username": "alice",
        "text": "Hello!",
        "in_reply_to": None,
        "replies_count": 0,
        "reposts_count": 0,
        "edited_at": None,
        "tags": [],
        "mentions": [],
        "warning": None,
        "visibility": "public",
        "poll_id": None,
    }


@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_a_reply_to_no_post_is_404(client: TestClient, as_user: Headers, path: str) -> None:
    response = client.post(path, json={"text": "?", "in_reply_to": UNKNOWN}, headers=as_user("alice"))

    assert (response.status_code, response.json()["code"]) == (404, "post_not_found")


@pytest.mark.parametrize("path", ["/posts", "/posts/async"])
def test_a_reply_to_somebody_blocked_is_403(
    client: TestClient, as_user: Headers, users: Users, path: str
) -> None:
    post = _write(client, as_user("bobby"))
    repost = client.post(f"/posts/id/{post['id']}/repost", headers=as_user("carol")).json()
    users.followees["alice"], users.blocked["alice"] = [], ["bobby"]

    for parent in (post, repost):
        refused = client.post(path, json={"text": "?", "in_reply_to": parent["id"]}, headers=as_user("alice"))
        assert (refused.status_code, refused.json()["code"]) == (403, "blocked")


def test_a_reply_to_somebody_muted_is_taken(client: TestClient, as_user: Headers, users: Users) -> None:
    post = _write(client, as_user("bobby"))
    users.followees["alice"], users.hidden["alice"] = [], ["bobby"]

    assert _reply_status(client, as_user("alice"), post) == 201


def _reply_status(client: TestClient, headers: dict[str, str], post: dict[str, Any]) -> int:
    body = {"text": "Yes.", "in_reply_to": post["id"]}
    return client.post("/posts", json=body, headers=headers).status_code


def test_without_the_users_service_the_last_blocks_count(
    client: TestClient, as_user: Headers, users: Users
) -> None:
    of_bobby, of_carol = (_write(client, as_user(name)) for name in ("bobby", "carol"))
    users.followees["alice"], users.blocked["alice"] = [], ["bobby"]
    _reply_status(client, as_user("alice"), of_carol)
    users.is_away = True

    assert [_reply_status(client, as_user("alice"), post) for post in (of_bobby, of_carol)] == [403, 201]


def test_without_the_users_service_only_replies_to_others_wait(
    client: TestClient, as_user: Headers, users: Users
) -> None:
    of_bobby = _write(client, as_user("bobby"))
    users.is_away = True
    own = _write(client, as_user("alice"))

    assert [_reply_status(client, as_user("alice"), post) for post in (of_bobby, own)] == [503, 201]


@pytest.mark.parametrize(
    "change",
    [
        {"in_reply_to": "1"},
        {"poll_id": "1"},
        {"warning": ""},
        {"warning": "x" * 101},
        {"visibility": "private"},
    ],
    ids=str,
)
def test_what_a_post_cannot_be_is_422(
    client: TestClient, as_user: Headers, change: dict[str, object]
) -> None:
    body = {"text": "Hello!"} | change

    assert client.post("/posts", json=body, headers=as_user("alice")).status_code == 422


def test_the_same_key_and_text_with_another_warning_is_422(client: TestClient, as_user: Headers) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "once"}
    body = {"text": "Hello!", "warning": "Greetings"}
    first, again = (client.post("/posts", json=body, headers=headers) for _ in "ab")
    other = client.post("/posts", json=body | {"warning": "Other"}, headers=headers)

    assert first.json() == again.json()
    assert other.json()["code"] == "idempotency_key_reused"


def test_a_key_whose_post_is_deleted_is_404(client: TestClient, as_user: Headers) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "once"}
    post = _write(client, headers)
    client.delete(f"/posts/id/{post['id']}", headers=headers)

    assert client.post("/posts", json={"text": "Hello!"}, headers=headers).status_code == 404


def test_a_key_gets_the_first_post_though_it_would_not_be_accepted_any_more(
    client: TestClient, as_user: Headers
) -> None:
    headers = as_user("alice") | {"Idempotency-Key": "once"}
    parent = _write(client, as_user("bobby"))
    body = {"text": "You too!", "in_reply_to": parent["id"]}
    first = client.post("/posts", json=body, headers=headers)
    client.delete(f"/posts/id/{parent['id']}", headers=as_user("bobby"))

    again = client.post("/posts", json=body, headers=headers)
    other = client.post("/posts", json=body | {"text": "Me too!"}, headers=headers)
    new = client.post("/posts", json=body, headers=headers | {"Idempotency-Key": "twice"})

    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert [answer.json()["code"] for answer in (other, new)] == ["post_not_found"] * 2


def test_an_unlisted_post_is_its_users_and_not_everybodys(client: TestClient, as_user: Headers) -> None:
    body = {"text": "Psst!", "visibility": "unlisted", "warning": "Gossip"}
    post = client.post("/posts", json=body, headers=as_user("alice")).json()

    assert client.get("/posts").json() == []
    assert client.get("/posts/alice").json() == [post]
    assert (post["visibility"], post["warning"]) == ("unlisted", "Gossip")


def test_a_deleted_post_is_gone_and_its_replies_stay(client: TestClient, as_user: Headers) -> None:
    parent = _write(client, as_user("alice"))
    reply = _reply(client, as_user("bobby"), parent["id"])
    path = f"/posts/id/{parent['id']}"

    assert client.get(path).json()["replies_count"] == 1
    assert client.delete(path, headers=as_user("bobby")).status_code == 403
    assert client.delete(path, headers=as_user("alice")).status_code == 204
    assert client.delete(path, headers=as_user("alice")).status_code == 404
    for rest in ("", "/context", "/replies", "/versions", "/reposters"):
        assert client.get(path + rest).status_code == 404
    assert client.get("/posts").json() == [reply]
    assert reply["in_reply_to"] == parent["id"]


def test_a_deleted_reply_counts_no_more(client: TestClient, as_user: Headers) -> None:
    parent = _write(client, as_user("alice"))
    reply = _reply(client, as_user("bobby"), parent["id"])
    client.delete(f"/posts/id/{reply['id']}", headers=as_user("bobby"))

    assert client.get(f"/posts/id/{parent['id']}").json() == parent


def test_an_edit_keeps_the_earlier_texts(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"), "one")
    path = f"/posts/id/{post['id']}"
    edited = [client.patch(path, json={"text": text}, headers=as_user("alice")) for text in ("two", "three")]
    versions = client.get(f"{path}/versions").json()

    assert [one.status_code for one in edited] == [200, 200]
    assert edited[1].json()["edited_at"] > edited[0].json()["edited_at"] > post["created_at"]
    assert [(one["version"], one["text"]) for one in versions] == [(2, "two"), (1, "one")]
    assert [one["created_at"] for one in versions] == [edited[0].json()["edited_at"], post["created_at"]]


def test_versions_page_both_ways(client: TestClient, as_user: Headers) -> None:
    path = f"/posts/id/{_write(client, as_user('alice'))['id']}"
    for number in range(5):
        client.patch(path, json={"text": str(number)}, headers=as_user("alice"))
    first = client.get(f"{path}/versions?limit=2")
    second = client.get(first.links["next"]["url"])
    back = client.get(second.links["prev"]["url"])

    assert [one["version"] for one in first.json() + second.json()] == [5, 4, 3, 2]
    assert back.json() == first.json()


def test_the_same_text_again_is_no_edit(client: TestClient, as_user: Headers) -> None:
    path = f"/posts/id/{_write(client, as_user('alice'))['id']}"
    same = client.patch(path, json={"text": "Hello!"}, headers=as_user("alice"))

    assert (same.status_code, same.json()["edited_at"]) == (200, None)
    assert client.get(f"{path}/versions").json() == []


def test_only_its_author_edits_a_post_and_nobody_a_repost(client: TestClient, as_user: Headers) -> None:
    path = f"/posts/id/{_write(client, as_user('alice'))['id']}"
    repost = client.post(f"{path}/repost", headers=as_user("bobby")).json()
    body = {"text": "Mine!"}

    assert client.patch(path, json=body, headers=as_user("bobby")).status_code == 403
    answer = client.patch(f"/posts/id/{repost['id']}", json=body, headers=as_user("bobby"))
    assert (answer.status_code, answer.json()["code"]) == (400, "repost_has_no_text")


def test_replies_page_both_ways(client: TestClient, as_user: Headers) -> None:
    parent = _write(client, as_user("alice"))
    ids = [_reply(client, as_user("bobby"), parent["id"])["id"] for _ in range(5)][::-1]
    first = client.get(f"/posts/id/{parent['id']}/replies?limit=2")
    second = client.get(first.links["next"]["url"])
    back = client.get(second.links["prev"]["url"])

    assert [post["id"] for post in first.json() + second.json()] == ids[:4]
    assert back.json() == first.json()


def test_the_context_is_bounded_and_reaches_further_with_a_token(
    client: TestClient, store, as_user: Headers
) -> None:
    chain = [_write(client, as_user("alice"))["id"]]
    for _ in range(50):
        post = AcceptedPost(id=new_id(), username="alice", text="x", created_at=datetime.now(UTC))
        post.in_reply_to = UUID(chain[-1])
        chain.append(str(store.add(post).id))
    for headers, ancestors, descendants in (({}, 40, 20), (as_user("bobby"), 50, 50)):
        last = client.get(f"/posts/id/{chain[-1]}/context", headers=headers).json()
        first = client.get(f"/posts/id/{chain[0]}/context", headers=headers).json()

        assert [post["id"] for post in last["ancestors"]] == chain[-1 - ancestors : -1]
        assert [post["id"] for post in first["descendants"]] == chain[1 : 1 + descendants]


def test_a_repost_shows_the_whole_original_and_repeats_its_text(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"))
    path = f"/posts/id/{post['id']}/repost"
    made, again = (client.post(path, headers=as_user("bobby")) for _ in "ab")
    [shown] = client.get("/posts/bobby").json()

    assert [made.status_code, again.status_code] == [201, 200]
    assert made.json() == again.json()
    assert made.headers["Location"] == f"/posts/id/{shown['id']}"
    assert shown["repost_of"] == client.get(f"/posts/id/{post['id']}").json()
    assert (shown["username"], shown["text"], shown["reposts_count"]) == ("bobby", "Hello!", 1)
    assert client.get("/posts").json() == [shown["repost_of"]]


def test_a_repost_shows_what_its_original_says_now(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"))
    client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby"))
    client.patch(f"/posts/id/{post['id']}", json={"text": "Bye!"}, headers=as_user("alice"))

    assert client.get("/posts/bobby").json()[0]["text"] == "Bye!"


def test_a_repost_of_a_repost_is_one_of_the_original(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"))
    first = client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby")).json()
    second = client.post(f"/posts/id/{first['id']}/repost", headers=as_user("carol")).json()

    assert second["repost_of"]["id"] == post["id"]
    reposters = client.get(f"/posts/id/{first['id']}/reposters").json()
    assert [one["username"] for one in reposters] == ["carol", "bobby"]


def test_undoing_a_repost_is_idempotent(client: TestClient, as_user: Headers) -> None:
    post = _write(client, as_user("alice"))
    path = f"/posts/id/{post['id']}/repost"
    client.post(path, headers=as_user("bobby"))
    undone = [client.delete(path, headers=as_user("bobby")) for _ in "ab"]

    assert [one.status_code for one in undone] == [200, 200]
    assert undone[1].json() == post | {"reposted": False, "bookmarked": False, "pinned": False}
    assert client.get(f"/posts/id/{post['id']}/reposters").json() == []


def test_a_deleted_original_takes_its_reposts_with_it(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users.followees = {"alice": ["bobby"], "bobby": []}
    post = _write(client, as_user("carol"))
    repost = client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby")).json()
    client.delete(f"/posts/id/{post['id']}", headers=as_user("carol"))

    for path in ("/posts/bobby", "/posts/home/alice", "/posts", f"/posts?id={repost['id']}"):
        assert client.get(path, headers=as_user("alice")).json() == []
    assert client.get(f"/posts/id/{repost['id']}").status_code == 404


def test_a_post_at_home_is_there_as_itself_or_as_the_oldest_repost(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users.followees["alice"] = ["bobby", "carol"]
    followed, strange = (_write(client, as_user(name)) for name in ("bobby", "dave0"))
    for name in ("bobby", "carol"):
        for post in (followed, strange):
            client.post(f"/posts/id/{post['id']}/repost", headers=as_user(name))
    home = client.get("/posts/home/alice", headers=as_user("alice")).json()

    assert [(post["username"], post["text"]) for post in home] == [("bobby", "Hello!")] * 2
    assert home[0]["repost_of"]["id"] == strange["id"]
    assert home[1]["id"] == followed["id"]


def test_bookmarks_are_private_and_page_both_ways(client: TestClient, as_user: Headers) -> None:
    ids = [_write(client, as_user("alice"))["id"] for _ in range(5)]
    for post_id in ids + ids:
        assert client.put(f"/posts/id/{post_id}/bookmark", headers=as_user("bobby")).status_code == 204
    first = client.get("/bookmarks?limit=2", headers=as_user("bobby"))
    client.delete(f"/posts/id/{ids[3]}/bookmark", headers=as_user("bobby"))
    second = client.get(first.links["next"]["url"], headers=as_user("bobby"))
    back = client.get(second.links["prev"]["url"], headers=as_user("bobby"))

    assert [post["id"] for post in first.json() + second.json()] == ids[::-1][:4]
    assert [post["id"] for post in back.json()] == [ids[4]]
    assert client.get("/bookmarks", headers=as_user("alice")).json() == []


def test_a_deleted_post_is_in_no_bookmarks_and_pins(client: TestClient, as_user: Headers) -> None:
    path = f"/posts/id/{_write(client, as_user('alice'))['id']}"
    _write(client, as_user("alice"))
    for mark in ("bookmark", "pin"):
        client.put(f"{path}/{mark}", headers=as_user("alice"))
    client.delete(path, headers=as_user("alice"))

    assert client.get("/bookmarks", headers=as_user("alice")).json() == []
    assert client.get("/posts/alice?pinned=true").status_code == 404


def test_pins_are_your_own_posts_and_at_most_five(client: TestClient, users: Users, as_user: Headers) -> None:
    ids = [_write(client, as_user("alice"))["id"] for _ in range(6)]
    answers = [client.put(f"/posts/id/{post_id}/pin", headers=as_user("alice")) for post_id in ids]
    pinned = client.get("/posts/alice?pinned=true").json()

    assert [one.status_code for one in answers] == [204] * 5 + [409]
    assert [post["id"] for post in pinned] == ids[4::-1]
    assert client.put(f"/posts/id/{ids[0]}/pin", headers=as_user("alice")).status_code == 204
    assert client.put(f"/posts/id/{ids[5]}/pin", headers=as_user("bobby")).status_code == 403
    assert client.delete(f"/posts/id/{ids[0]}/pin", headers=as_user("alice")).status_code == 204
    assert client.put(f"/posts/id/{ids[5]}/pin", headers=as_user("alice")).status_code == 204


@pytest.mark.parametrize("path", ["/posts", "/posts/alice", "/posts?id={id}", "/posts/id/{id}"])
def test_with_a_token_a_post_says_what_its_reader_has_done(
    client: TestClient, as_user: Headers, as_service: Headers, path: str
) -> None:
    post = _write(client, as_user("alice"))
    client.put(f"/posts/id/{post['id']}/bookmark", headers=as_user("bobby"))
    client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby"))
    client.put(f"/posts/id/{post['id']}/pin", headers=as_user("alice"))

    def marks(headers: dict[str, str]) -> dict[str, bool]:
        answer = client.get(path.format(**post), headers=headers).json()
        [found] = answer if isinstance(answer, list) else [answer]
        return {name: found[name] for name in found.keys() & {"reposted", "bookmarked", "pinned"}}

    assert marks(as_user("bobby")) == {"reposted": True, "bookmarked": True, "pinned": False}
    assert marks(as_user("alice")) == {"reposted": False, "bookmarked": False, "pinned": True}
    assert marks({}) == marks(as_service("likes")) == {}


def test_a_batch_is_in_the_order_asked_without_the_unknown(client: TestClient, as_user: Headers) -> None:
    ids = [_write(client, as_user("alice"))["id"] for _ in range(3)]
    asked = [ids[1], UNKNOWN, ids[2], ids[0], ids[1]]
    found = client.get("/posts", params={"id": asked})

    assert [post["id"] for post in found.json()] == [ids[1], ids[2], ids[0]]
    assert client.get("/posts", params={"id": [UNKNOWN] * 101}).status_code == 422


def test_posts_are_counted_for_each_user_asked(client: TestClient, as_user: Headers, users: Users) -> None:
    users.followees = {"bobby": []}
    last = [_write(client, as_user("alice")) for _ in range(2)][-1]
    client.post(f"/posts/id/{last['id']}/repost", headers=as_user("bobby"))
    counts = client.get("/posts/counts?username=bobby&username=alice").json()

    assert counts == [
        {"username": "bobby", "posts_count": 0, "last_posted_at": None},
        {"username": "alice", "posts_count": 2, "last_posted_at": last["created_at"]},
    ]


def test_users_who_do_not_exist_are_not_counted_if_that_can_be_told(client: TestClient, users: Users) -> None:
    users.followees = {"alice": []}
    path = "/posts/counts?username=alice&username=nobody1"
    told = client.get(path).json()
    users.is_away = True

    assert [one["username"] for one in told] == ["alice"]
    assert [one["username"] for one in client.get(path).json()] == ["alice", "nobody1"]


def test_a_users_timeline_leaves_out_replies_and_reposts_when_told_to(
    client: TestClient, as_user: Headers
) -> None:
    other = _write(client, as_user("bobby"))
    post = _write(client, as_user("alice"))
    reply = _reply(client, as_user("alice"), other["id"])
    repost = client.post(f"/posts/id/{other['id']}/repost", headers=as_user("alice")).json()

    def ids(query: str) -> list[str]:
        return [one["id"] for one in client.get(f"/posts/alice?{query}").json()]

    assert ids("") == [repost["id"], reply["id"], post["id"]]
    assert ids("replies=false") == [repost["id"], post["id"]]
    assert ids("reposts=false") == [reply["id"], post["id"]]
    assert ids("replies=false&reposts=false") == [post["id"]]
    assert "replies=false" in client.get("/posts/alice?replies=false&limit=1").headers["Link"]


@pytest.mark.parametrize("path", ["/posts", "/posts/alice", "/posts/home/bobby"])
def test_following_the_links_either_way_yields_every_post_once(
    client: TestClient, users: Users, as_user: Headers, path: str
) -> None:
    users.followees = {"alice": [], "bobby": ["alice"]}
    ids = [_write(client, as_user("alice"))["id"] for _ in range(7)][::-1]
    there = list(pages(client, f"{path}?limit=3", headers=as_user("bobby")))
    newer = [_write(client, as_user("alice"))["id"] for _ in range(2)][::-1]
    newer_pages = pages(client, there[-1].links["prev"]["url"], "prev", headers=as_user("bobby"))
    back = [there[-1], *newer_pages]

    assert [post["id"] for page in there for post in page.json()] == ids
    assert [post["id"] for page in back[::-1] for post in page.json()] == newer + ids
    assert back[-1].json() == []


def test_the_hidden_are_not_at_home_reposted_or_not(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users.followees["alice"] = ["bobby", "carol"]
    users.hidden["alice"] = ["carol", "dave0"]
    shown = _write(client, as_user("bobby"))
    for name in ("carol", "dave0"):
        post = _write(client, as_user(name))
        client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby"))
    home = client.get("/posts/home/alice", headers=as_user("alice")).json()

    assert [post["id"] for post in home] == [shown["id"]]


def test_your_own_posts_are_at_home_if_you_say_so(client: TestClient, users: Users, as_user: Headers) -> None:
    users.followees["alice"] = ["bobby"]
    ids = [_write(client, as_user(name))["id"] for name in ("alice", "bobby")]

    def home(query: str) -> list[str]:
        return [
            post["id"] for post in client.get(f"/posts/home/alice{query}", headers=as_user("alice")).json()
        ]

    assert home("") == ids[1:]
    assert home("?include_self=true") == ids[::-1]


def test_with_a_users_service_of_the_last_version_home_is_as_before(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users.is_of_last_version = True
    users.followees["alice"] = ["bobby"]
    post = _write(client, as_user("bobby"))
    homes = [client.get("/posts/home/alice", headers=as_user("alice")).json() for _ in "ab"]

    assert [one["id"] for home in homes for one in home] == [post["id"]] * 2


def test_a_tags_posts_are_found_in_any_spelling(client: TestClient, as_user: Headers) -> None:
    posts = [_write(client, as_user("alice"), text) for text in ("#Café!", "#CAFE\u0301 #tea", "café")]
    body = {"text": "#café", "visibility": "unlisted"}
    unlisted = client.post("/posts", json=body, headers=as_user("alice")).json()

    assert posts[1]["tags"] == ["café", "tea"]
    assert client.get("/tags/CAF%C3%89").json() == [posts[1], posts[0]]
    assert client.get("/posts/alice?tag=café").json() == [unlisted, posts[1], posts[0]]
    assert client.get("/tags").json() == [{"tag": "café", "posts_count": 2}, {"tag": "tea", "posts_count": 1}]


def test_an_edited_post_has_the_tags_of_its_new_text_and_a_deleted_one_none(
    client: TestClient, as_user: Headers
) -> None:
    post = _write(client, as_user("alice"), "#one #two")
    path = f"/posts/id/{post['id']}"
    edited = client.patch(path, json={"text": "#two #three"}, headers=as_user("alice")).json()

    assert edited["tags"] == ["two", "three"]
    assert [len(client.get(f"/tags/{tag}").json()) for tag in ("one", "two", "three")] == [0, 1, 1]
    client.delete(path, headers=as_user("alice"))
    assert client.get("/tags/two").json() == client.get("/tags").json() == []


def test_tags_in_use_page_by_the_last_one(client: TestClient, as_user: Headers) -> None:
    for text in ("#a #b #c #d", "#a #b #c", "#a #b", "#b"):
        _write(client, as_user("alice"), text)
    first = client.get("/tags?limit=2")
    second = client.get(first.links["next"]["url"])

    assert [one["tag"] for one in first.json() + second.json()] == ["b", "a", "c", "d"]
    assert "next" not in second.links


def test_tags_in_use_go_on_when_the_last_one_is_used_no_more(client: TestClient, as_user: Headers) -> None:
    for text in ("#a #b", "#b", "#c"):
        _write(client, as_user("alice"), text)
    gone = _write(client, as_user("alice"), "#bb")
    first = client.get("/tags?limit=3")
    client.delete(f"/posts/id/{gone['id']}", headers=as_user("alice"))

    second = client.get(first.links["next"]["url"])

    assert [one["tag"] for one in first.json()] == ["b", "a", "bb"]
    assert [one["tag"] for one in second.json()] == ["c"]


@pytest.mark.parametrize(
    "path", ["/tags/1", "/tags/a-b", "/tags?before=%23a", f"/posts/alice?tag={'x' * 101}"]
)
def test_what_is_no_tag_is_422(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 422


def test_a_tags_page_goes_both_ways(client: TestClient, as_user: Headers) -> None:
    ids = [_write(client, as_user("alice"), "#tea")["id"] for _ in range(5)][::-1]
    first = client.get("/tags/tea?limit=2")
    second = client.get(first.links["next"]["url"])

    assert [post["id"] for post in first.json() + second.json()] == ids[:4]
    assert client.get(second.links["prev"]["url"]).json() == first.json()
