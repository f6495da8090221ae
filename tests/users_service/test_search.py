"""Users who are found by the words of their names."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from tests.pages import pages
from users_service import search as module
from users_service.models import ProfileChanges
from users_service.relations import BLOCK
from users_service.store import UsersStore

Headers = Callable[[str], dict[str, str]]
Users = Callable[..., None]


@pytest.fixture
def people(store: UsersStore, users: Users) -> None:
    """Users with display names."""
    names = {
        "alice": "Alice Liddell",
        "jose_m": "José María Núñez",
        "straus": "Johann Strauß",
        "mo_salah": "محمد صلاح",
        "zoe2": None,
    }
    users(*names)
    for username, name in names.items():
        store.change(username, ProfileChanges(display_name=name))


def found(client: TestClient, q: str, headers: dict[str, str] | None = None) -> list[str]:
    answer = client.get("/search/users", params={"q": q}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [profile["username"] for profile in answer.json()]


@pytest.mark.parametrize(
    ("q", "username"),
    [
        ("alice", "alice"),
        ("ALI", "alice"),
        ("lidd", "alice"),
        ("liddell alice", "alice"),
        ("jose", "jose_m"),
        ("MARÍA", "jose_m"),
        ("maria nunez", "jose_m"),
        ("nun\u0303ez", "jose_m"),
        ("@jose_m!", "jose_m"),
        ("strauss", "straus"),
        ("STRAUß", "straus"),
        ("محم", "mo_salah"),
        ("salah", "mo_salah"),
        ("zoe", "zoe2"),
    ],
)
def test_a_user_is_found_by_the_beginning_of_any_word(
    client: TestClient, people: None, q: str, username: str
) -> None:
    assert found(client, q) == [username]


@pytest.mark.parametrize("q", ["lice", "alice nunez", "ell", "", " ", "!", "%", "_", "\U0010ffff"])
def test_other_words_find_nobody(client: TestClient, people: None, q: str) -> None:
    assert found(client, q) == []


@pytest.mark.parametrize("query", ["", "q=" + "x" * 101, "q=x&limit=0", "q=x&limit=101", "q=x&before=%00"])
def test_a_malformed_search_is_422(client: TestClient, query: str) -> None:
    assert client.get(f"/search/users?{query}").status_code == 422


def test_what_is_found_are_profiles(client: TestClient, people: None) -> None:
    assert client.get("/search/users?q=alice").json() == [client.get("/users/alice").json()]


def test_a_user_is_found_by_a_new_name_and_not_by_the_old_one(
    client: TestClient, people: None, as_user: Headers
) -> None:
    client.patch("/users/alice", json={"display_name": "Al Pleasance"}, headers=as_user("alice"))
    assert (found(client, "pleas"), found(client, "liddell")) == (["alice"], [])

    client.patch("/users/alice", json={"display_name": None}, headers=as_user("alice"))
    assert (found(client, "pleas"), found(client, "alice")) == ([], ["alice"])


def test_the_blocked_are_hidden_from_each_other_only(
    client: TestClient, people: None, store: UsersStore, as_user: Headers
) -> None:
    store.relations.mark(BLOCK, "alice", "jose_m")

    assert found(client, "jose", as_user("alice")) == []
    assert found(client, "alice", as_user("jose_m")) == []
    assert found(client, "jose", as_user("zoe2")) == found(client, "jose") == ["jose_m"]


@pytest.mark.parametrize("q", ["user", "user x", "x user", "u"])
@pytest.mark.parametrize("rare", [1, 5, 2000])
def test_pages_fit_together_whatever_the_plan_is(
    client: TestClient, users: Users, monkeypatch: pytest.MonkeyPatch, q: str, rare: int
) -> None:
    monkeypatch.setattr(module, "RARE", rare)
    names = [f"user_{number}_user2_x" for number in range(7)]
    users(*names, "user_y", "zzz")
    expected = [*names, "user_y"] if "x" not in q else names
    found = pages(client, f"/search/users?q={q.replace(' ', '+')}&limit=3")
    seen = [profile["username"] for page in found for profile in page.json()]

    assert sorted(seen) == sorted(expected)
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("q", ["user", "user x"])
def test_a_page_goes_on_from_a_user_who_is_gone(
    client: TestClient, users: Users, store: UsersStore, q: str
) -> None:
    users("user_x1", "user_x2", "user_x3")
    first = client.get("/search/users", params={"q": q, "limit": 2})
    last = first.json()[-1]["username"]
    assert store.deletions.begin(last, "no hash", "-", timedelta(hours=1))
    second = client.get(first.links["next"]["url"])

    assert (last, [profile["username"] for profile in second.json()]) == ("user_x2", ["user_x3"])


def test_a_page_goes_on_from_where_a_user_was_with_an_older_name(
    client: TestClient, users: Users, store: UsersStore
) -> None:
    users("anna", "annb", "annc")
    first = client.get("/search/users?q=ann&limit=2")
    store.change("annb", ProfileChanges(display_name="Ann"))

    assert [profile["username"] for profile in client.get(first.links["next"]["url"]).json()] == ["annc"]
    assert client.get("/search/users?q=ann&before=annb&limit=1").json()[0]["username"] == "anna"


@pytest.mark.parametrize("seen", ["", "a%00", "a+b", "a%20", "x" * 51, "-"])
def test_a_malformed_word_is_422(client: TestClient, seen: str) -> None:
    assert client.get(f"/search/users?q=ann&before=anna&seen={seen}").status_code == 422


def test_a_cursor_that_is_not_found_is_400(client: TestClient, people: None) -> None:
    answer = client.get("/search/users?q=alice&before=jose_m")

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_cursor")
