"""What the users service answers."""

from collections.abc import Callable
from typing import Any

import pytest
import servers
from fastapi.testclient import TestClient
from passlib.hash import argon2

from common.auth import Tokens
from common.routing import MAX_BODY_BYTES
from tests.waiting import eventually
from users_service.app import create_app
from users_service.models import NewUser
from users_service.settings import UsersSettings
from users_service.store import UsersStore

Headers = Callable[[str], dict[str, str]]
Users = Callable[..., None]

ALICE = {"username": "alice", "password": "correct horse"}
JSON = {"Content-Type": "application/json"}


def test_registering_answers_with_the_profile(client: TestClient) -> None:
    body = ALICE | {"email": "alice@example.com", "bio": " Reads. "}
    created = client.post("/register", json=body)
    profile = created.json()

    assert (created.status_code, created.headers["Location"]) == (201, "/users/alice")
    assert profile.pop("created_at").endswith("Z")
    assert profile == {"username": "alice", "email": "alice@example.com", "bio": "Reads."}


def test_names_differ_by_more_than_case(client: TestClient) -> None:
    client.post("/register", json=ALICE | {"username": "Alice"})
    again = client.post("/register", json=ALICE)

    assert (again.status_code, again.json()["code"]) == (409, "username_taken")
    assert client.get("/users/ALICE").json()["username"] == "alice"


def test_a_taken_address_is_409(client: TestClient) -> None:
    client.post("/register", json=ALICE | {"email": "a@example.com"})
    other = client.post("/register", json=ALICE | {"username": "bobby", "email": "a@example.com"})

    assert (other.status_code, other.json()["code"]) == (409, "email_taken")


@pytest.mark.parametrize(
    "change",
    [
        {"username": "al"},
        {"username": "a" * 31},
        {"username": "al ice"},
        {"username": "älice"},
        {"username": "admin"},
        {"username": "Home"},
        {"username": None},
        {"password": "1234567"},
        {"password": "x" * 129},
        {"password": "correct\x00horse"},
        {"email": "alice"},
        {"email": "a@b@c"},
        {"email": "a@example.com\nBcc: b@example.com"},
        {"bio": "x" * 501},
        {"bio": "\x07"},
        {"is_admin": True},
    ],
)
def test_a_malformed_user_is_422(client: TestClient, change: dict[str, Any]) -> None:
    answer = client.post("/register", json=ALICE | change)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"#/{next(iter(change))}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"NaN",
        b'"\xff"',
        b"[" * 10_000,
        b'{"username": "\\ud800"}',
        b'{"\\ud800": 1}',
    ],
)
def test_what_is_no_user_at_all_is_422(client: TestClient, body: bytes) -> None:
    assert client.post("/register", content=body, headers=JSON).status_code == 422


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_large_body_is_413(client: TestClient, path: str, is_chunked: bool) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)

    assert client.post(path, content=iter([body]) if is_chunked else body, headers=JSON).status_code == 413


@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_body_of_another_type_is_415(client: TestClient, path: str) -> None:
    assert client.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


@pytest.mark.parametrize("form", ["json", "data"])
def test_signing_in_gives_a_token(client: TestClient, tokens: Tokens, form: str) -> None:
    client.post("/register", json=ALICE)
    signed_in = client.post("/login", **{form: ALICE | {"username": "Alice"}}).json()

    assert tokens.subject(signed_in["access_token"]) == "alice"
    assert (signed_in["token_type"], signed_in["expires_in"]) == ("bearer", 3600)


def test_a_form_may_have_the_fields_of_oauth(client: TestClient) -> None:
    client.post("/register", json=ALICE)
    grant = {"grant_type": "password", "scope": "", "client_id": "x", "client_secret": "y"}

    assert client.post("/login", data=ALICE | grant).status_code == 200


@pytest.mark.parametrize("form", ["json", "data"])
def test_signing_in_with_other_fields_is_422(client: TestClient, form: str) -> None:
    answer = client.post("/login", **{form: ALICE | {"otp": "1"}})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/otp")


def test_an_unknown_name_and_a_wrong_password_get_the_same_words(client: TestClient) -> None:
    client.post("/register", json=ALICE)
    answers = [
        client.post("/login", json=ALICE | change) for change in ({"username": "nobody"}, {"password": "x"})
    ]
    words = [{key: answer.json()[key] for key in ("status", "code", "detail")} for answer in answers]

    assert words[0] == words[1]
    assert (answers[0].status_code, answers[0].headers["WWW-Authenticate"]) == (401, "Bearer")


def test_an_old_hash_becomes_a_new_one_at_sign_in(client: TestClient, store: UsersStore) -> None:
    old = argon2.using(time_cost=1, memory_cost=8192, parallelism=1).hash(ALICE["password"])
    store.register(NewUser(**ALICE), old)

    assert client.post("/login", json=ALICE).status_code == 200
    assert store.password_hash("alice") != old
    assert client.post("/login", json=ALICE).status_code == 200


@pytest.fixture
def with_address(client: TestClient) -> str:
    client.post("/register", json=ALICE | {"email": "alice@example.com"})
    return "alice@example.com"


def test_an_address_is_shown_to_its_owner_and_to_services(
    client: TestClient, with_address: str, as_user: Headers, as_service: Headers
) -> None:
    for headers in (as_user("alice"), as_service("likes")):
        assert client.get("/users/alice", headers=headers).json()["email"] == with_address


def test_an_address_is_shown_to_nobody_else(client: TestClient, with_address: str, as_user: Headers) -> None:
    for headers in ({}, as_user("bobby")):
        assert "email" not in client.get("/users/alice", headers=headers).json()


def test_a_bad_token_is_401_where_a_token_is_optional(client: TestClient, users: Users) -> None:
    users("alice")

    assert client.get("/users/alice", headers={"Authorization": "Bearer x"}).status_code == 401


def test_an_unknown_user_is_404(client: TestClient, as_user: Headers) -> None:
    calls = [("GET", "/users/nobody"), ("GET", "/users/nobody/followees"), ("POST", "/users/unfollow/nobody")]
    for method, path in calls:
        assert client.request(method, path, headers=as_user("alice")).json()["code"] == "user_not_found"


def test_following_says_whether_it_is_new(client: TestClient, users: Users, as_user: Headers) -> None:
    users("alice", "bobby")
    answers = [client.post("/users/follow/Bobby", headers=as_user("alice")) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json() for answer in answers] == [
        {"follower": "alice", "followee": "bobby", "following": True, "changed": changed}
        for changed in (True, False)
    ]


def test_unfollowing_says_whether_there_was_something_to_end(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby")
    client.post("/users/follow/bobby", headers=as_user("alice"))
    answers = [client.post("/users/unfollow/bobby", headers=as_user("alice")).json() for _ in range(2)]

    assert [(answer["following"], answer["changed"]) for answer in answers] == [(False, True), (False, False)]


def test_following_oneself_is_400(client: TestClient, users: Users, as_user: Headers) -> None:
    users("alice")

    assert client.post("/users/follow/alice", headers=as_user("alice")).status_code == 400


@pytest.mark.parametrize("path", ["/users/follow/bobby", "/users/unfollow/bobby"])
def test_following_needs_a_users_token(client: TestClient, as_service: Headers, path: str) -> None:
    assert client.post(path).status_code == 401
    assert client.post(path, headers=as_service("likes")).status_code == 403


def test_a_page_of_followees_links_to_the_next(client: TestClient, users: Users, as_user: Headers) -> None:
    users("alice", "bobby", "carol", "david")
    for name in ("bobby", "carol", "david"):
        client.post(f"/users/follow/{name}", headers=as_user("alice"))
    first = client.get("/users/alice/followees?limit=2")

    assert first.json() == ["david", "carol"]
    assert first.headers["Link"] == '</users/alice/followees?limit=2&before=carol>; rel="next"'
    assert client.get("/users/alice/followees?limit=2&before=carol").json() == ["bobby"]
    assert "Link" not in client.get("/users/alice/followees?limit=3").headers


@pytest.mark.parametrize("query", ["limit=0", "limit=7501", "limit=x", "before=a", "before=admin"])
def test_a_malformed_page_is_422(client: TestClient, users: Users, query: str) -> None:
    users("alice")

    assert client.get(f"/users/alice/followees?{query}").status_code == 422


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
def test_an_unchanged_list_is_304(client: TestClient, users: Users, form: str) -> None:
    users("alice")
    etag = client.get("/users/alice/followees").headers["ETag"]
    answer = client.get("/users/alice/followees", headers={"If-None-Match": form.format(etag)})

    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)


def test_a_changed_list_is_sent_again(client: TestClient, users: Users, as_user: Headers) -> None:
    users("alice", "bobby")
    etag = client.get("/users/alice/followees").headers["ETag"]
    client.post("/users/follow/bobby", headers=as_user("alice"))

    assert client.get("/users/alice/followees", headers={"If-None-Match": etag}).json() == ["bobby"]


def test_without_postgres_it_answers_503_until_postgres_is_there(data) -> None:
    port = servers.free_port()
    settings = UsersSettings(_env_file=None, registry_url=None, db_port=port)
    with TestClient(create_app(settings)) as client:
        assert client.get("/users/alice").status_code == 503
        assert client.get("/health").json()["checks"] == {"postgres": "unavailable"}
        assert client.get("/livez").status_code == 200

        server = servers.postgres(data / "late-postgres", port, durable=False)
        try:
            eventually(lambda: client.get("/health").status_code == 200)
            assert client.get("/users/alice").status_code == 404
        finally:
            server.stop()
