"""Tokens that are refused before they expire: after signing out, and after a new password."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from common.revocations import Revocations
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from tests.polling import eventually
from users_service.app import create_app
from users_service.revocations import MAX_REVOKED_TOKENS, RevocationStore
from users_service.store import UsersStore

Headers = Callable[[str], dict[str, str]]

ALICE = {"username": "alice", "password": "correct horse"}
NEW = {"current_password": ALICE["password"], "new_password": "battery staple"}
HOUR = timedelta(hours=1)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
def revocations(store: UsersStore) -> RevocationStore:
    return store.revocations


@pytest.fixture
def sign_in(client: TestClient) -> Callable[..., dict[str, str]]:
    """The headers of a request with a new token of alice."""
    client.post("/register", json=ALICE)

    def sign_in(password: str = ALICE["password"]) -> dict[str, str]:
        answer = client.post("/login", json=ALICE | {"password": password})
        return bearer(answer.json()["access_token"])

    return sign_in


@pytest.fixture
def another_instance(app: FastAPI) -> Iterator[TestClient]:
    other = create_app(app.state.settings)
    other.state.store.prepare()
    with TestClient(other) as client:
        yield client


def is_accepted(client: TestClient, headers: dict[str, str]) -> bool:
    answer = client.get("/users/alice", headers=headers)
    assert answer.status_code == 200 or answer.json()["code"] == "invalid_token"
    return answer.status_code == 200


def test_who_signs_out_ends_this_session_only(client: TestClient, sign_in: Callable) -> None:
    here, elsewhere = sign_in(), sign_in()

    assert client.post("/logout", headers=here).status_code == 204

    assert not is_accepted(client, here)
    assert is_accepted(client, elsewhere)
    assert client.post("/logout", headers=here).status_code == 401


def test_signing_out_takes_a_users_token(client: TestClient, as_service: Headers) -> None:
    assert client.post("/logout").status_code == 401
    assert client.post("/logout", headers=as_service("likes")).status_code == 403


def test_a_new_password_ends_all_sessions_and_signs_in(client: TestClient, sign_in: Callable) -> None:
    sessions = [sign_in(), sign_in()]
    assert client.put("/users/alice/password", json=NEW, headers=sessions[0]).status_code == 204

    assert not any(is_accepted(client, session) for session in sessions)
    assert client.post("/login", json=ALICE).status_code == 401
    assert is_accepted(client, sign_in(NEW["new_password"]))


def test_a_token_of_the_same_second_as_the_new_password_is_good(
    client: TestClient, sign_in: Callable
) -> None:
    passwords = [ALICE["password"], "battery staple", "quiet river lantern"]
    for current, new in pairwise(passwords):
        body = {"current_password": current, "new_password": new}
        assert client.put("/users/alice/password", json=body, headers=sign_in(current)).status_code == 204

        assert is_accepted(client, sign_in(new))


def test_a_wrong_current_password_changes_nothing(client: TestClient, sign_in: Callable) -> None:
    session = sign_in()
    answer = client.put("/users/alice/password", json=NEW | {"current_password": "wrong"}, headers=session)

    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_password")
    assert is_accepted(client, session)


def test_a_password_is_its_owners_to_change(client: TestClient, sign_in: Callable, as_user: Headers) -> None:
    assert (
        client.put("/users/alice/password", json=NEW, headers=as_user("bobby")).json()["code"] == "not_yours"
    )
    assert client.put("/users/alice/password", json=NEW).status_code == 401


@pytest.mark.parametrize(
    ("new", "code"),
    [("short", "string_too_short"), ("password", "common_password"), ("Alice_In_Wonder", "name_as_password")],
)
def test_a_new_password_has_the_rules_of_a_first_one(
    client: TestClient, as_user: Headers, new: str, code: str
) -> None:
    client.post("/register", json=ALICE | {"username": "alice_in_wonder"})
    body = NEW | {"new_password": new}
    answer = client.put("/users/alice_in_wonder/password", json=body, headers=as_user("alice_in_wonder"))

    error = answer.json()["errors"][0]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, "#/new_password", code)


def test_of_two_new_passwords_at_once_one_is_taken(
    revocations: RevocationStore, store: UsersStore, users
) -> None:
    users("alice")
    with ThreadPoolExecutor(2) as pool:
        changed = list(
            pool.map(lambda new: revocations.change_password("alice", "no hash", new, HOUR), ["one", "two"])
        )

    assert sorted(changed) == [False, True]
    assert store.credentials("alice") == (["one", "two"][changed.index(True)], 1)


def test_another_instance_learns_of_it(
    client: TestClient, another_instance: TestClient, sign_in: Callable
) -> None:
    session = sign_in()
    assert is_accepted(another_instance, session)

    client.post("/logout", headers=session)

    eventually(lambda: not is_accepted(another_instance, session))


def test_an_instance_that_starts_knows_what_was_revoked(
    app: FastAPI, client: TestClient, sign_in: Callable
) -> None:
    session = sign_in()
    client.post("/logout", headers=session)
    later = create_app(app.state.settings)
    later.state.store.prepare()
    with TestClient(later) as started:
        eventually(lambda: not is_accepted(started, session))


def test_revocations_are_for_services_only(client: TestClient, as_user: Headers) -> None:
    assert client.get("/revocations").status_code == 401
    assert client.get("/revocations", headers=as_user("alice")).status_code == 403


def test_a_service_reads_what_is_new_to_it(
    client: TestClient, sign_in: Callable, as_service: Headers, tokens: Tokens
) -> None:
    sessions = [sign_in(), sign_in()]
    for session in sessions:
        client.post("/logout", headers=session)
    likes = as_service("likes")

    everything = client.get("/revocations", headers=likes).json()
    first, second = everything["revocations"]
    assert (first["username"], first["generation"]) == ("alice", 0)
    assert everything["position"] == second["position"]
    news = client.get(f"/revocations?after={first['position']}", headers=likes).json()
    assert news["revocations"] == [second]
    ahead = client.get(f"/revocations?after={second['position'] + 1}", headers=likes).json()
    assert ahead == everything


def test_who_waits_for_revocations_learns_of_one_at_once(
    app: FastAPI, client: TestClient, sign_in: Callable, as_service: Headers
) -> None:
    session = sign_in()
    position = client.get("/revocations", headers=as_service("likes")).json()["position"]
    with ThreadPoolExecutor(1) as pool:
        path = f"/revocations?after={position}&wait=30"
        waiting = pool.submit(client.get, path, headers=as_service("likes"))
        client.post("/logout", headers=session)

        assert len(waiting.result().json()["revocations"]) == 1


def test_a_stopping_instance_ends_all_waiting(app: FastAPI, client: TestClient, as_service: Headers) -> None:
    position = client.get("/revocations", headers=as_service("likes")).json()["position"]
    with ThreadPoolExecutor(1) as pool:
        path = f"/revocations?after={position}&wait=30"
        waiting = pool.submit(client.get, path, headers=as_service("likes"))
        client.portal.call(asyncio.sleep, 0)
        client.portal.call(app.state.watchers.stop)

        assert waiting.result().json()["code"] == "leaving"


def test_revocations_become_visible_in_the_order_of_their_positions(
    revocations: RevocationStore, users: Callable
) -> None:
    names = [f"user{number}" for number in range(8)]
    users(*names)
    seen: list[int] = []

    def revoke(name: str) -> None:
        for number in range(10):
            revocations.revoke_token(name, f"{name} {number}", HOUR, HOUR)

    with ThreadPoolExecutor(7) as pool:
        running = [pool.submit(revoke, name) for name in names]
        while not all(one.done() for one in running):
            seen += [one.position for one in revocations.since(seen[-1] if seen else 0)]
    seen += [one.position for one in revocations.since(seen[-1] if seen else 0)]

    assert seen == [one.position for one in revocations.since(0)]
    assert len(seen) == 80


def test_who_signs_out_very_often_ends_all_sessions(
    revocations: RevocationStore, store: UsersStore, users
) -> None:
    users("alice")
    for number in range(MAX_REVOKED_TOKENS + 1):
        revocations.revoke_token("alice", str(number), HOUR, HOUR)

    last = revocations.since(0)[-1]
    assert (last.jti, last.generation) == (None, 1)
    assert store.credentials("alice")[1] == 1


def test_what_has_expired_is_deleted(store: UsersStore, revocations: RevocationStore, users) -> None:
    users("alice")
    revocations.revoke_token("alice", "old", -HOUR, HOUR)
    revocations.revoke_token("alice", "new", HOUR, HOUR)
    assert [one.jti for one in revocations.since(0)] == ["new"]

    revocations.delete_expired()

    assert store._database.rows(text("SELECT jti FROM revocations"), {}) == [("new",)]


def test_a_token_without_a_generation_is_of_the_first(revocations: RevocationStore) -> None:
    tokens = Tokens(DEFAULT_JWT_SECRET, "HS256", HOUR, Revocations())

    assert tokens.claims(tokens.issue("alice")).gen == 0
    assert tokens.claims(tokens.issue("alice", 3)).gen == 3
