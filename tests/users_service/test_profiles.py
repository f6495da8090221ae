"""Profiles: what they have, who changes them, and many of them at once."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from common.fields import RESERVED_LATER, new_id
from users_service.models import NewUser
from users_service.store import UsersStore

Headers = Callable[[str], dict[str, str]]
Users = Callable[..., None]
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


def test_a_profile_has_an_id_of_version_7_that_it_keeps(client: TestClient) -> None:
    made = client.post("/register", json={"username": "alice", "password": "correct horse"}).json()

    assert UUID(made["id"]).version == 7
    assert client.get("/users/alice").json()["id"] == made["id"]


def test_a_user_is_shown_by_the_username_until_there_is_a_display_name(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users("alice")
    assert client.get("/users/alice").json()["display_name"] == "alice"

    client.patch("/users/alice", json={"display_name": "Alice Liddell"}, headers=as_user("alice"))

    assert client.get("/users/alice").json()["display_name"] == "Alice Liddell"


def test_a_profile_counts_follows_both_ways(client: TestClient, users: Users, store: UsersStore) -> None:
    users("alice", "bobby", "carol")
    store.follow("bobby", "alice")
    store.follow("carol", "alice")
    store.follow("alice", "carol")

    profile = client.get("/users/alice").json()
    assert (profile["followers_count"], profile["followees_count"]) == (2, 1)


def test_another_user_sees_what_is_between_the_two(
    client: TestClient, users: Users, store: UsersStore, as_user: Headers
) -> None:
    users("alice", "bobby")
    store.follow("bobby", "alice")

    seen = client.get("/users/alice", headers=as_user("bobby")).json()["relationship"]
    assert seen == {"following": True, "followed_by": False, "blocking": False, "muting": False}


@pytest.mark.parametrize("viewer", ["alice", None, "a service"])
def test_only_another_user_is_told_a_relationship(
    client: TestClient, users: Users, as_user: Headers, as_service: Headers, viewer: str | None
) -> None:
    users("alice")
    headers = {} if viewer is None else as_service("likes") if viewer == "a service" else as_user(viewer)

    assert "relationship" not in client.get("/users/alice", headers=headers).json()


def test_a_token_of_a_user_that_is_gone_has_no_relationship(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users("alice")

    seen = client.get("/users/alice", headers=as_user("ghost")).json()["relationship"]
    assert not any(seen.values())


@pytest.mark.parametrize("media_type", ["application/json", "application/merge-patch+json"])
def test_a_merge_patch_changes_what_it_names_only(
    client: TestClient, as_user: Headers, media_type: str
) -> None:
    client.post(
        "/register",
        json={"username": "alice", "password": "correct horse", "email": "a@example.com", "bio": "Reads."},
    )
    answer = client.patch(
        "/users/alice",
        content=b'{"bio": " Cooks. "}',
        headers=as_user("alice") | {"Content-Type": media_type},
    )

    profile = answer.json()
    assert (answer.status_code, profile["bio"], profile["email"]) == (200, "Cooks.", "a@example.com")


def test_null_makes_a_field_what_it_was_in_the_beginning(client: TestClient, as_user: Headers) -> None:
    client.post("/register", json={"username": "alice", "password": "correct horse"})
    changed = {
        "display_name": "Al",
        "bio": "Reads.",
        "email": "a@example.com",
        "mail_notifications": False,
    }
    client.patch("/users/alice", json=changed, headers=as_user("alice"))
    profile = client.patch("/users/alice", json=dict.fromkeys(changed), headers=as_user("alice")).json()

    assert [profile[name] for name in changed] == ["alice", "", None, True]


@pytest.mark.parametrize(
    "change",
    [
        {"display_name": ""},
        {"display_name": "   "},
        {"display_name": "x" * 51},
        {"display_name": "two\nlines"},
        {"display_name": "\x07"},
        {"bio": "x" * 501},
        {"email": "alice"},
        {"mail_notifications": "no"},
        {"mail_notifications": 1},
        {"username": "bobby"},
        {"id": "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"},
        {"password": "correct horse"},
    ],
)
def test_a_malformed_change_is_422(
    client: TestClient, users: Users, as_user: Headers, change: dict[str, Any]
) -> None:
    users("alice")
    answer = client.patch("/users/alice", json=change, headers=as_user("alice"))

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#/{next(iter(change))}")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"x"', b"{"])
def test_a_change_is_an_object(client: TestClient, users: Users, as_user: Headers, body: bytes) -> None:
    users("alice")
    answer = client.patch("/users/alice", content=body, headers=as_user("alice") | MERGE_PATCH)

    assert answer.status_code == 422


def test_no_change_at_all_is_a_change(client: TestClient, users: Users, as_user: Headers) -> None:
    users("alice")

    assert client.patch("/users/alice", json={}, headers=as_user("alice")).status_code == 200


def test_a_change_in_another_media_type_is_415(client: TestClient, users: Users, as_user: Headers) -> None:
    users("alice")
    headers = as_user("alice") | {"Content-Type": "application/json-patch+json"}

    assert client.patch("/users/alice", content=b"{}", headers=headers).status_code == 415


def test_a_profile_is_its_owners_to_change(
    client: TestClient, users: Users, as_user: Headers, as_service: Headers
) -> None:
    users("alice", "bobby")
    for headers, status in ((as_user("bobby"), 403), (as_service("likes"), 403), ({}, 401)):
        assert client.patch("/users/alice", json={"bio": "x"}, headers=headers).status_code == status


def test_an_owner_who_is_gone_changes_nothing(client: TestClient, as_user: Headers) -> None:
    for change in ({"bio": "x"}, {}):
        assert client.patch("/users/ghost", json=change, headers=as_user("ghost")).status_code == 404


def test_the_address_of_another_is_409(client: TestClient, as_user: Headers) -> None:
    for name in ("alice", "bobby"):
        user = {"username": name, "password": "correct horse", "email": f"{name}@example.com"}
        client.post("/register", json=user)
    answer = client.patch("/users/alice", json={"email": "BOBBY@example.com"}, headers=as_user("alice"))

    assert (answer.status_code, answer.json()["code"]) == (409, "email_taken")


def test_profiles_come_in_the_order_asked_and_unknown_ones_are_left_out(
    client: TestClient, users: Users
) -> None:
    users("alice", "bobby", "carol")
    ids = {name: client.get(f"/users/{name}").json()["id"] for name in ("alice", "carol")}
    query = f"username=bobby&username=nobody&username=Alice&id={ids['carol']}&id={new_id()}&id={ids['alice']}"

    found = client.get(f"/users?{query}").json()
    assert [profile["username"] for profile in found] == ["bobby", "alice", "carol"]
    assert found[1] == client.get("/users/alice").json()


def test_a_hundred_profiles_come_at_once_and_not_one_more(client: TestClient, users: Users) -> None:
    names = [f"user{number}" for number in range(101)]
    users(*names)

    assert len(client.get("/users", params={"username": names[:100]}).json()) == 100
    assert client.get("/users", params={"username": names}).status_code == 422
    assert client.get("/users").json() == []


@pytest.mark.parametrize("query", ["username=a", "id=1", "username=alice&id="])
def test_a_malformed_name_or_id_among_many_is_422(client: TestClient, query: str) -> None:
    assert client.get(f"/users?{query}").status_code == 422


@pytest.mark.parametrize("name", sorted(RESERVED_LATER))
def test_a_name_that_is_reserved_now_is_not_given_but_goes_on_working(
    client: TestClient, store: UsersStore, as_user: Headers, name: str
) -> None:
    refused = client.post("/register", json={"username": name, "password": "correct horse"})
    assert refused.json()["errors"][0]["code"] == "reserved_name"

    store.register(NewUser.model_construct(username=name, bio="", email=None), "no hash")
    assert client.get(f"/users/{name}").json()["username"] == name
    assert client.patch(f"/users/{name}", json={"bio": "Here."}, headers=as_user(name)).status_code == 200
