"""What the users service answers."""

import re
import time
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import server_processes
from fastapi import FastAPI
from fastapi.testclient import TestClient
from passlib.hash import argon2, pbkdf2_sha256
from sqlalchemy import text

from common.api.routing import MAX_BODY_BYTES
from common.fields import RESERVED_NAMES
from common.tokens import Tokens
from tests.own_server import Own
from tests.polling import eventually
from users_service.app import create_app
from users_service.models import MAX_FOLLOWEES, NewUser, OwnProfile, Profile
from users_service.passwords import Passwords
from users_service.routes import FORM
from users_service.settings import UsersSettings
from users_service.store import UsersStore

Headers = Callable[[str], dict[str, str]]
Users = Callable[..., None]

ALICE = {"username": "alice", "password": "correct horse"}
JSON = {"Content-Type": "application/json"}


def test_a_wrong_database_password_is_a_misconfiguration_and_logged_once(
    postgres: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(UsersSettings(_env_file=None, registry_url=None, db_port=postgres, db_password="wrong"))
    with TestClient(app) as client:
        eventually(lambda: "misconfigured" in client.get("/users/alice").json()["detail"])
        profile, health = client.get("/users/alice"), client.get("/health")

    assert (profile.status_code, profile.json()["code"]) == (503, "postgres_unavailable")
    assert (health.status_code, health.json()["checks"]) == (503, {"postgres": "unavailable"})
    rejected = [line for line in caplog.messages if "rejects" in line]
    assert len(rejected) == 1
    assert f"localhost:{postgres} rejects user postgres: correct DB_USER and DB_PASSWORD" in rejected[0]


def test_registering_answers_with_the_profile(client: TestClient) -> None:
    body = ALICE | {"email": "alice@example.com", "bio": " Reads. "}
    created = client.post("/register", json=body)
    profile = created.json()

    assert (created.status_code, created.headers["Location"]) == (201, "/users/alice")
    assert profile["created_at"].endswith("Z")
    assert [profile[field] for field in ("username", "email", "bio")] == [
        "alice",
        "alice@example.com",
        "Reads.",
    ]


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
        *[{"username": name} for name in sorted(RESERVED_NAMES)],
        {"username": "Home"},
        {"username": "alice\n"},
        {"username": "service:likes"},
        {"username": "\u212aelvin"},
        {"username": None},
        {"username": ["alice"]},
        {"password": "1234567"},
        {"password": "x" * 129},
        {"password": "correct\x00horse"},
        {"password": 12345678},
        {"password": "Password"},
        {"password": "ALICE123", "username": "alice123"},
        {"email": ""},
        {"email": "alice"},
        {"email": "a" * 64 + "@" + "b" * 186 + ".com"},
        {"email": "a@b@c"},
        {"email": "a@example.com\nBcc: b@example.com"},
        {"email": "=?utf-8?q?victim=40other.example=2C?=@example.com"},
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
    ("password", "code"), [("iloveyou1", "common_password"), ("alice_in_wonder", "name_as_password")]
)
def test_what_is_guessed_first_is_refused_with_a_clear_word(
    client: TestClient, password: str, code: str
) -> None:
    answer = client.post("/register", json={"username": "alice_in_wonder", "password": password})
    problem = answer.json()

    assert (answer.status_code, problem["errors"][0]["code"]) == (422, code)
    assert password not in answer.text


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
        b'{"username": "alice", "password": 1' + b"0" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/register", "/login"])
def test_what_is_no_user_at_all_is_422(client: TestClient, path: str, body: bytes) -> None:
    assert client.post(path, content=body, headers=JSON).status_code == 422


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"username=alice", b"username=alice&password=" + b"x" * 129, b"username=%00&password=x"],
)
def test_a_malformed_form_is_422(client: TestClient, body: bytes) -> None:
    assert client.post("/login", content=body, headers={"Content-Type": FORM}).status_code == 422


@pytest.mark.parametrize("password", ["", "\x00", "correct horse\x00", "ü" * 128])
@pytest.mark.parametrize("form", ["json", "data"])
def test_no_password_but_the_right_one_signs_in(client: TestClient, form: str, password: str) -> None:
    client.post("/register", json=ALICE)
    answer = client.post("/login", **{form: ALICE | {"password": password}})

    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_credentials")


@pytest.mark.parametrize("password", ["8 letter", "x" * 128, "pässword 😀", " spaces stay "])
def test_who_registers_with_a_password_signs_in_with_it(client: TestClient, password: str) -> None:
    assert client.post("/register", json=ALICE | {"password": password}).status_code == 201

    for form in ("json", "data"):
        assert client.post("/login", **{form: ALICE | {"password": password}}).status_code == 200


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_large_body_is_413(client: TestClient, path: str, is_chunked: bool) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)

    assert client.post(path, content=iter([body]) if is_chunked else body, headers=JSON).status_code == 413


@pytest.mark.parametrize("path", ["/register", "/login"])
def test_a_body_of_another_type_is_415(client: TestClient, path: str) -> None:
    assert client.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


@pytest.mark.parametrize("path", ["/register", "/login"])
def test_no_body_at_all_is_422(client: TestClient, path: str) -> None:
    assert client.post(path).status_code == 422


@pytest.mark.parametrize("form", ["json", "data"])
def test_signing_in_gives_a_token(client: TestClient, tokens: Tokens, form: str) -> None:
    client.post("/register", json=ALICE)
    signed_in = client.post("/login", **{form: ALICE | {"username": "Alice"}}).json()

    assert tokens.subject(signed_in["access_token"]) == "alice"
    assert (signed_in["token_type"], signed_in["expires_in"]) == ("bearer", 3600)


def test_nobody_on_the_way_keeps_a_token(client: TestClient) -> None:
    client.post("/register", json=ALICE)

    assert client.post("/login", json=ALICE).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status", "header"),
    [
        ("post", "/register", "201", "Location"),
        ("post", "/login", "200", "Cache-Control"),
        ("get", "/users/{username}/followees", "200", "ETag"),
        ("get", "/users/{username}/followees", "304", "ETag"),
    ],
)
def test_a_header_that_is_sent_is_documented(
    client: TestClient, method: str, path: str, status: str, header: str
) -> None:
    call = client.get("/openapi.json").json()["paths"][path][method]

    assert header in call["responses"][status]["headers"]


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


def _seconds(client: TestClient, username: str) -> float:
    began = time.perf_counter()
    assert client.post("/login", json={"username": username, "password": "wrong horse"}).status_code == 401
    return time.perf_counter() - began


def test_an_unknown_name_takes_as_long_as_a_wrong_password(client: TestClient) -> None:
    # Pairs, so that a busy machine slows both alike; their ranks, so that one long pause counts once.
    client.post("/register", json=ALICE)
    pairs = [(_seconds(client, "alice"), _seconds(client, "nobody")) for _ in range(40)]

    # By luck alone it is outside these bounds once in five million times.
    assert 4 < sum(known > unknown for known, unknown in pairs) < 36


class _Watched(Passwords):
    """Remembers what was checked."""

    def __init__(self) -> None:
        super().__init__()
        self.checked: list[str | None] = []

    async def verify(self, password: str, hashed: str | None) -> bool:
        self.checked.append(hashed)
        return await super().verify(password, hashed)


def test_a_hash_is_checked_for_an_unknown_name_too(client: TestClient, app: FastAPI) -> None:
    client.post("/register", json=ALICE)
    app.state.accounts._passwords = watched = _Watched()
    for name in ("nobody", "alice"):
        client.post("/login", json={"username": name, "password": "wrong"})

    assert [hashed is None for hashed in watched.checked] == [True, False]


@pytest.mark.parametrize(
    "kind",
    [argon2.using(time_cost=1, memory_cost=8192, parallelism=1), pbkdf2_sha256],
    ids=lambda it: it.name,
)
def test_an_old_hash_becomes_a_new_one_at_sign_in(client: TestClient, store: UsersStore, kind: Any) -> None:
    old = kind.hash(ALICE["password"])
    store.register(NewUser(**ALICE), old)

    client.post("/login", json=ALICE | {"password": "wrong"})
    assert store.credentials("alice")[0] == old

    assert client.post("/login", json=ALICE).status_code == 200
    assert not Passwords().is_outdated(str(store.credentials("alice")[0]))
    assert client.post("/login", json=ALICE).status_code == 200


NFC, NFD = (unicodedata.normalize(form, "Ünïcödé pässwörd") for form in ("NFC", "NFD"))


def test_a_user_signs_in_with_any_form_of_the_password(client: TestClient) -> None:
    client.post("/register", json=ALICE | {"password": NFD})

    for password in (NFC, NFD, NFC.replace(" ", "\u00a0")):
        assert client.post("/login", json=ALICE | {"password": password}).status_code == 200


def test_a_hash_of_the_form_that_was_sent_becomes_one_of_the_normal_form(
    client: TestClient, store: UsersStore
) -> None:
    store.register(NewUser(**ALICE), argon2.using(time_cost=2, memory_cost=19456, parallelism=1).hash(NFD))
    assert client.post("/login", json=ALICE | {"password": NFC}).status_code == 401

    assert client.post("/login", json=ALICE | {"password": NFD}).status_code == 200

    assert client.post("/login", json=ALICE | {"password": NFC}).status_code == 200


@pytest.mark.parametrize(
    ("password", "status"),
    [
        (unicodedata.normalize("NFD", "ä" * 7), 422),
        (unicodedata.normalize("NFD", "ä" * 8), 201),
        (unicodedata.normalize("NFD", "\u1f82" * 128), 201),
        (unicodedata.normalize("NFD", "\u1f82" * 129), 422),
        ("a" + "\u0301\u0323" * 9999, 422),
    ],
    ids=lambda it: ascii(it)[:20],
)
def test_a_password_is_as_long_as_its_normal_form(client: TestClient, password: str, status: int) -> None:
    account = ALICE | {"password": password}
    assert client.post("/register", json=account).status_code == status

    if status == 201:
        assert client.post("/login", json=account).status_code == 200


@pytest.mark.parametrize("password", ["x" * 129, "ä" * 129, "a" + "\u0301\u0323" * 9999])
def test_a_login_with_a_longer_password_than_any_is_422(client: TestClient, password: str) -> None:
    refused = client.post("/login", json={"username": "alice", "password": password})

    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "string_too_long")


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
    for headers in ({}, as_user("bobby"), as_user("alice_")):
        answer = client.get("/users/alice", headers=headers)

        private = set(OwnProfile.model_fields) - set(Profile.model_fields)
        assert private == {"email", "mail_notifications"}
        assert set(answer.json()) - {"relationship"} == set(Profile.model_fields)
        assert with_address not in answer.text


def test_nothing_else_says_an_address_or_a_hash(
    client: TestClient, with_address: str, users: Users, as_user: Headers
) -> None:
    users("bobby")
    taken = client.post("/register", json=ALICE | {"username": "carol", "email": with_address})
    followed = client.post("/users/follow/alice", headers=as_user("bobby"))
    own = client.get("/users/alice", headers=as_user("alice"))

    assert all(with_address not in answer.text for answer in (taken, followed))
    assert "argon2" not in own.text
    assert "password" not in own.text


def test_a_bad_token_is_401_where_a_token_is_optional(client: TestClient, users: Users) -> None:
    users("alice")

    assert client.get("/users/alice", headers={"Authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users/nobody"),
        ("GET", "/users/nobody/followees"),
        ("POST", "/users/follow/nobody"),
        ("POST", "/users/unfollow/nobody"),
    ],
)
def test_an_unknown_user_is_404(
    client: TestClient, users: Users, as_user: Headers, method: str, path: str
) -> None:
    users("alice")
    answer = client.request(method, path, headers=as_user("alice"))

    assert (answer.status_code, answer.json()["code"]) == (404, "user_not_found")


@pytest.mark.parametrize("path", ["/users/al", "/users/al%00ice", "/users/me", "/users/%FF%FE%FD/followees"])
def test_what_is_no_name_is_422(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 422


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


@pytest.mark.parametrize("written", ["alice", "Alice"])
def test_following_oneself_is_400(client: TestClient, users: Users, as_user: Headers, written: str) -> None:
    users("alice")
    answer = client.post(f"/users/follow/{written}", headers=as_user("alice"))

    assert (answer.status_code, answer.json()["code"]) == (400, "cannot_follow_yourself")


def test_following_more_than_the_limit_is_409(
    client: TestClient, store: UsersStore, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby")
    with store._database.transaction() as connection:
        connection.execute(text("UPDATE users SET followees = :n"), {"n": MAX_FOLLOWEES})
    answer = client.post("/users/follow/bobby", headers=as_user("alice"))

    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_followees")
    assert client.get("/users/alice/followees").json() == []


def test_a_token_of_a_user_that_is_gone_is_401(client: TestClient, users: Users, as_user: Headers) -> None:
    users("bobby")
    answer = client.post("/users/follow/bobby", headers=as_user("ghost"))

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("path", ["/users/follow/bobby", "/users/unfollow/bobby"])
def test_following_needs_a_users_token(client: TestClient, as_service: Headers, path: str) -> None:
    assert client.post(path).status_code == 401
    assert client.post(path, headers=as_service("likes")).status_code == 403


def test_a_page_of_followees_links_to_its_neighbours(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby", "carol", "david")
    for name in ("bobby", "carol", "david"):
        client.post(f"/users/follow/{name}", headers=as_user("alice"))
    first = client.get("/users/alice/followees?limit=2")

    assert first.json() == ["david", "carol"]
    assert re.sub("&seen=[0-9a-f]{32}", "", first.headers["Link"]) == (
        '</users/alice/followees?limit=2&before=carol>; rel="next", '
        '</users/alice/followees?limit=2&after=david>; rel="prev"'
    )
    assert client.get("/users/alice/followees?limit=2&before=carol").json() == ["bobby"]
    assert 'rel="next"' not in client.get("/users/alice/followees?limit=3").headers["Link"]


def test_all_followees_come_in_one_page_if_asked_for(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    names = [f"user{number}" for number in range(25)]
    users("alice", *names)
    for name in names:
        client.post(f"/users/follow/{name}", headers=as_user("alice"))

    assert client.get(f"/users/alice/followees?limit={MAX_FOLLOWEES}").json() == names[::-1]
    assert client.get("/users/alice/followees").json() == names[:4:-1]


def test_a_cursor_that_is_no_followee_is_400(client: TestClient, users: Users) -> None:
    users("alice", "bobby")
    answer = client.get("/users/alice/followees?before=bobby")

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_cursor")


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


def test_a_long_list_of_tags_is_only_a_list_without_ours(client: TestClient) -> None:
    client.post("/register", json=ALICE)
    tags = ", ".join(f'"{number}"' for number in range(1000))

    assert client.get("/users/alice/followees", headers={"If-None-Match": tags}).status_code == 200


CALLS = [
    ("POST", "/register", ALICE),
    ("POST", "/login", ALICE),
    ("GET", "/users/alice", None),
    ("POST", "/users/follow/bobby", None),
    ("POST", "/users/unfollow/bobby", None),
    ("GET", "/users/alice/followees", None),
]


def _assert_away(client: TestClient, headers: dict[str, str]) -> None:
    for method, path, body in CALLS:
        answer = client.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "postgres_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/health").json()["checks"] == {"postgres": "unavailable"}
    assert client.get("/livez").status_code == 200


@pytest.mark.kills
def test_postgres_may_come_late_go_away_and_come_back(own: Own, as_user: Headers) -> None:
    postgres = own(partial(server_processes.postgres, durable=False))
    settings = UsersSettings(_env_file=None, registry_url=None, db_port=postgres.port)
    with TestClient(create_app(settings)) as client:
        _assert_away(client, as_user("alice"))

        postgres.start()
        eventually(lambda: client.get("/health").status_code == 200)
        assert client.post("/register", json=ALICE).status_code == 201

        postgres.stop()
        _assert_away(client, as_user("alice"))

        postgres.start()
        eventually(lambda: client.get("/health").status_code == 200)
        assert client.post("/login", json=ALICE).status_code == 200
