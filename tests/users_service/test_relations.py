"""Follows, blocks and mutes: exact whatever happens at once, and known to their owner."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import NamedTuple

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from common.errors import Conflict, Forbidden
from common.postgres.outbox import RecordedEvent
from tests.pages import pages
from tests.users_service.conftest import WRONG_COUNTS
from users_service import relations as module
from users_service.relations import BLOCK, MUTE, Page, Relations
from users_service.store import UsersStore

Headers = Callable[[str], dict[str, str]]
Users = Callable[..., None]

NAMES = [f"user{number}" for number in range(6)]
BLOCKED_FOLLOWS = text("""
    SELECT 1 FROM follows JOIN blocks
    ON (owner, subject) IN ((follower, followee), (followee, follower))
""")


class ListOfNames(NamedTuple):
    """A list of alice's, and how a name comes into it and out of it."""

    path: str
    add: Callable[[Relations, str], bool]
    remove: Callable[[Relations, str], bool]


LISTS = [
    ListOfNames(
        "followees",
        lambda relations, name: relations.follow("alice", name),
        lambda relations, name: relations.unfollow("alice", name),
    ),
    ListOfNames(
        "followers",
        lambda relations, name: relations.follow(name, "alice"),
        lambda relations, name: relations.unfollow(name, "alice"),
    ),
    *(
        ListOfNames(
            f"{mark.verb}s",
            lambda relations, name, mark=mark: relations.mark(mark, "alice", name),
            lambda relations, name, mark=mark: relations.unmark(mark, "alice", name),
        )
        for mark in (BLOCK, MUTE)
    ),
]
each_list = pytest.mark.parametrize("names", LISTS, ids=lambda one: one.path)


@pytest.fixture
def relations(store: UsersStore) -> Relations:
    return store.relations


def test_two_who_follow_each_other_at_once_do_not_deadlock(
    store: UsersStore, relations: Relations, users: Users
) -> None:
    users("alice", "bobby")
    pairs = [("alice", "bobby"), ("bobby", "alice")] * 4

    def follow_and_end(pair: tuple[str, str]) -> None:
        for _ in range(25):
            relations.follow(*pair)
            relations.unfollow(*pair)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(follow_and_end, pairs))

    assert store._database.rows(WRONG_COUNTS, {}) == []


def test_a_thousand_who_follow_one_at_once_are_all_counted(
    store: UsersStore, relations: Relations, users: Users
) -> None:
    names = [f"fan{number}" for number in range(1000)]
    users("alice", *names)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda name: relations.follow(name, "alice"), names))

    assert store.profile("alice").followers_count == 1000
    assert store._database.rows(WRONG_COUNTS, {}) == []


def test_counts_are_exact_and_no_block_is_passed_when_everything_happens_at_once(
    store: UsersStore, relations: Relations, users: Users
) -> None:
    users(*NAMES)
    block, mute = partial(relations.mark, BLOCK), partial(relations.mark, MUTE)
    unblock = partial(relations.unmark, BLOCK)
    changes = [relations.follow, relations.follow, relations.unfollow, block, unblock, mute]

    def change(number: int) -> None:
        dice = Random(number)
        for _ in range(60):
            pair = dice.sample(NAMES, 2)
            try:
                dice.choice(changes)(*pair)
            except Forbidden:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(8)))

    assert store._database.rows(WRONG_COUNTS, {}) == []
    assert store._database.rows(BLOCKED_FOLLOWS, {}) == []


def test_followers_are_newest_first_and_paged(client: TestClient, relations: Relations, users: Users) -> None:
    users("alice", "bobby", "carol", "david")
    for name in ("carol", "david", "bobby"):
        relations.follow(name, "alice")

    first = client.get("/users/alice/followers?limit=2")
    assert first.json() == ["bobby", "david"]
    assert first.links["next"]["url"].startswith("/users/alice/followers?limit=2&before=david&seen=")
    assert client.get("/users/alice/followers?limit=2&before=david").json() == ["carol"]


@each_list
def test_links_lead_through_all_of_a_list_both_ways_while_it_grows(
    client: TestClient, relations: Relations, users: Users, as_user: Headers, names: ListOfNames
) -> None:
    them = [f"user{number}" for number in range(9)]
    users("alice", *them)
    for name in them[:7]:
        names.add(relations, name)

    def follow_links(query: str, rel: str) -> list[list[str]]:
        found = pages(client, f"/users/alice/{names.path}?{query}", rel, headers=as_user("alice"))
        return [page.json() for page in found]

    down = follow_links("limit=3", "next")
    for name in them[7:]:
        names.add(relations, name)
    up = follow_links(f"limit=3&after={them[0]}", "prev")

    assert [name for page in down for name in page] == them[6::-1]
    assert [name for page in up[::-1] for name in page] == them[:0:-1]


@pytest.fixture
def neighbours(
    client: TestClient, relations: Relations, users: Users, as_user: Headers, names: ListOfNames
) -> Callable[[], list[list[str]]]:
    """Five names are in the list. Reads the pages that the middle one's links to, the older one first."""
    users("alice", *NAMES)
    for name in NAMES[:5]:
        names.add(relations, name)
    path = f"/users/alice/{names.path}?limit=1&before={NAMES[3]}"
    links = client.get(path, headers=as_user("alice")).links

    def read() -> list[list[str]]:
        pages = [client.get(links[rel]["url"], headers=as_user("alice")) for rel in ("next", "prev")]
        assert [page.status_code for page in pages] == [200, 200]
        return [page.json() for page in pages]

    return read


@each_list
def test_a_page_goes_on_from_a_name_that_is_gone(
    relations: Relations, neighbours: Callable, names: ListOfNames
) -> None:
    names.remove(relations, NAMES[2])

    assert neighbours() == [[NAMES[1]], [NAMES[3]]]


@each_list
def test_a_page_goes_on_from_where_a_name_was_that_has_come_back(
    relations: Relations, neighbours: Callable, names: ListOfNames
) -> None:
    names.remove(relations, NAMES[2])
    names.add(relations, NAMES[2])

    assert neighbours() == [[NAMES[1]], [NAMES[3]]]


def test_links_keep_the_size_of_pages_after_a_name_that_is_gone(
    client: TestClient, relations: Relations, users: Users
) -> None:
    users("alice", *NAMES)
    for name in NAMES:
        relations.follow(name, "alice")
    seen: list[list[str]] = []
    for page in pages(client, "/users/alice/followers?limit=2"):
        seen.append(page.json())
        relations.unfollow(seen[-1][-1], "alice")

    assert seen == [NAMES[5:3:-1], NAMES[3:1:-1], NAMES[1::-1]]


def test_a_position_counts_only_with_its_own_name_and_list(
    client: TestClient, relations: Relations, users: Users
) -> None:
    users("alice", "carol", *NAMES)
    for name in NAMES:
        relations.follow(name, "alice")
        relations.follow(name, "carol")
    relations.unfollow(NAMES[5], "alice")
    link = client.get("/users/carol/followers?limit=1").links["next"]["url"]

    assert client.get(link.replace("carol", "alice")).json()["code"] == "unknown_cursor"
    assert client.get(link.replace(NAMES[5], NAMES[2])).json() == [NAMES[1]]


@pytest.mark.parametrize("seen", ["", "1", "x" * 32, "0" * 31, "0" * 33, "%00" * 32, "A" * 32])
@each_list
def test_a_malformed_position_is_422(
    client: TestClient, users: Users, as_user: Headers, names: ListOfNames, seen: str
) -> None:
    users("alice")
    path = f"/users/alice/{names.path}?before=bobby&seen={seen}"

    assert client.get(path, headers=as_user("alice")).status_code == 422


def test_followers_of_nobody_are_404(client: TestClient) -> None:
    assert client.get("/users/nobody/followers").status_code == 404


def test_a_cursor_that_is_no_follower_is_400(client: TestClient, users: Users) -> None:
    users("alice", "bobby")
    answer = client.get("/users/alice/followers?before=bobby")

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_cursor")


def test_relationships_come_in_the_order_asked(
    client: TestClient, relations: Relations, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby", "carol", "david")
    relations.follow("alice", "bobby")
    relations.follow("bobby", "alice")
    relations.mark(MUTE, "alice", "bobby")
    relations.mark(BLOCK, "alice", "carol")
    relations.mark(BLOCK, "david", "alice")

    path = "/users/alice/relationships?with=carol&with=nobody&with=bobby&with=david"
    nothing = {"following": False, "followed_by": False, "blocking": False, "muting": False}
    assert client.get(path, headers=as_user("alice")).json() == [
        nothing | {"username": "carol", "blocking": True},
        nothing | {"username": "bobby", "following": True, "followed_by": True, "muting": True},
        nothing | {"username": "david"},
    ]


def test_a_user_who_is_named_twice_has_one_relationship(
    client: TestClient, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby")
    path = "/users/alice/relationships?with=bobby&with=Bobby"

    assert [one["username"] for one in client.get(path, headers=as_user("alice")).json()] == ["bobby"]


@pytest.mark.parametrize("path", ["relationships?with=bobby", "blocks", "mutes"])
def test_what_a_user_thinks_of_others_is_for_that_user_only(
    client: TestClient, users: Users, as_user: Headers, as_service: Headers, path: str
) -> None:
    users("alice", "bobby")
    expected = ((as_user("alice"), 200), (as_user("bobby"), 403), (as_service("likes"), 403), ({}, 401))
    for headers, status in expected:
        assert client.get(f"/users/alice/{path}", headers=headers).status_code == status


def test_a_block_ends_follows_both_ways_and_forbids_them(
    client: TestClient, relations: Relations, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby")
    relations.follow("alice", "bobby")
    relations.follow("bobby", "alice")

    done = client.post("/users/block/bobby", headers=as_user("alice"))
    assert done.json() == {"blocker": "alice", "blocked": "bobby", "blocking": True, "changed": True}
    for name in ("alice", "bobby"):
        profile = client.get(f"/users/{name}").json()
        assert (profile["followers_count"], profile["followees_count"]) == (0, 0)
    for follower, followee in (("alice", "bobby"), ("bobby", "alice")):
        refused = client.post(f"/users/follow/{followee}", headers=as_user(follower))
        assert (refused.status_code, refused.json()["code"]) == (403, "blocked")


def test_after_a_block_is_ended_following_works_again(relations: Relations, users: Users) -> None:
    users("alice", "bobby")
    relations.mark(BLOCK, "alice", "bobby")
    relations.unmark(BLOCK, "alice", "bobby")

    assert relations.follow("bobby", "alice")


@pytest.mark.parametrize("verb", ["block", "mute"])
def test_marking_is_idempotent_and_so_is_ending_it(
    client: TestClient, users: Users, as_user: Headers, verb: str
) -> None:
    users("alice", "bobby")
    changed = [
        client.post(f"/users/{path}/bobby", headers=as_user("alice")).json()["changed"]
        for path in (verb, verb, f"un{verb}", f"un{verb}")
    ]

    assert changed == [True, False, True, False]


@pytest.mark.parametrize("verb", ["block", "unblock", "mute", "unmute"])
def test_an_unknown_user_cannot_be_marked(
    client: TestClient, users: Users, as_user: Headers, verb: str
) -> None:
    users("alice")

    assert client.post(f"/users/{verb}/nobody", headers=as_user("alice")).status_code == 404
    assert client.post(f"/users/{verb}/alice", headers=as_user("ghost")).status_code == 401


@pytest.mark.parametrize("verb", ["block", "mute"])
def test_marking_oneself_is_400(client: TestClient, users: Users, as_user: Headers, verb: str) -> None:
    users("alice")
    refused = client.post(f"/users/{verb}/alice", headers=as_user("alice"))

    assert (refused.status_code, refused.json()["code"]) == (400, f"cannot_{verb}_yourself")


@pytest.mark.parametrize("mark", [BLOCK, MUTE], ids=["blocks", "mutes"])
def test_marks_have_a_limit(
    relations: Relations, users: Users, monkeypatch: pytest.MonkeyPatch, mark: module.Mark
) -> None:
    users("alice", "bobby", "carol")
    monkeypatch.setattr(module, "MAX_MARKS", 1)
    relations.mark(mark, "alice", "bobby")

    with pytest.raises(Conflict):
        relations.mark(mark, "alice", "carol")
    assert [one.name for one in relations.marked(mark, "alice", Page(10))] == ["bobby"]


@pytest.mark.parametrize("path", ["blocks", "mutes"])
def test_marks_are_listed_newest_first_and_paged(
    client: TestClient, users: Users, as_user: Headers, path: str
) -> None:
    users("alice", "bobby", "carol", "david")
    for name in ("carol", "david", "bobby"):
        client.post(f"/users/{path.removesuffix('s')}/{name}", headers=as_user("alice"))

    first = client.get(f"/users/alice/{path}?limit=2", headers=as_user("alice"))
    assert first.json() == ["bobby", "david"]
    assert first.links["next"]["url"].startswith(f"/users/alice/{path}?limit=2&before=david&seen=")


def test_a_mute_tells_nobody_and_ends_no_follow(
    client: TestClient, relations: Relations, users: Users, as_user: Headers
) -> None:
    users("alice", "bobby")
    relations.follow("bobby", "alice")
    relations.mark(MUTE, "alice", "bobby")

    seen = client.get("/users/alice", headers=as_user("bobby")).json()["relationship"]
    assert seen == {"following": True, "followed_by": False, "blocking": False, "muting": False}


def test_a_home_timeline_is_made_of_followees_without_the_hidden(
    client: TestClient, relations: Relations, users: Users, as_service: Headers
) -> None:
    users("alice", "bobby", "carol", "david", "edgar")
    relations.follow("alice", "bobby")
    relations.follow("alice", "carol")
    relations.mark(MUTE, "alice", "bobby")
    relations.mark(BLOCK, "alice", "david")
    relations.mark(BLOCK, "edgar", "alice")

    sources = client.get("/users/alice/home-sources", headers=as_service("timelines")).json()
    assert sources["followees"] == ["carol", "bobby"]
    assert sorted(sources["hidden"]) == ["bobby", "david", "edgar"]
    assert sorted(sources["blocked"]) == ["david", "edgar"]


def test_home_sources_are_for_services_only(
    client: TestClient, users: Users, as_user: Headers, as_service: Headers
) -> None:
    users("alice")
    path = "/users/alice/home-sources"

    assert client.get(path, headers=as_user("alice")).json()["code"] == "services_only"
    assert client.get(path).status_code == 401
    assert client.get("/users/nobody/home-sources", headers=as_service("timelines")).status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        lambda relations: relations.follow("alice", "bobby"),
        lambda relations: relations.mark(MUTE, "alice", "bobby"),
        lambda relations: relations.mark(BLOCK, "alice", "bobby"),
        lambda relations: relations.mark(BLOCK, "bobby", "alice"),
    ],
    ids=["a follow", "a mute", "a block", "being blocked"],
)
def test_unchanged_home_sources_are_304_and_changed_ones_are_sent(
    client: TestClient, relations: Relations, users: Users, as_service: Headers, change: Callable
) -> None:
    users("alice", "bobby")
    service = as_service("timelines")
    etag = client.get("/users/alice/home-sources", headers=service).headers["ETag"]
    again = service | {"If-None-Match": etag}
    assert client.get("/users/alice/home-sources", headers=again).status_code == 304

    change(relations)

    assert client.get("/users/alice/home-sources", headers=again).status_code == 200


def _told(store: UsersStore) -> list[tuple[str, str, str]]:
    """What the timelines service is told of follows."""
    events: list[RecordedEvent] = []
    while store.outbox.relay(events.append):
        pass
    return [(one.payload["kind"], one.payload["follower"], one.payload["followee"]) for one in events]


def test_a_follow_and_its_end_are_told_once_each(store: UsersStore, users: Users) -> None:
    users("alice", "bobby")
    for change in (store.follow, store.follow, store.unfollow, store.unfollow):
        change("alice", "bobby")

    assert _told(store) == [("followed", "alice", "bobby"), ("unfollowed", "alice", "bobby")]


def test_a_block_tells_of_the_follows_that_it_ends(store: UsersStore, users: Users) -> None:
    users("alice", "bobby")
    store.follow("alice", "bobby")
    store.follow("bobby", "alice")
    _told(store)
    store.relations.mark(BLOCK, "alice", "bobby")

    assert sorted(_told(store)) == [("unfollowed", "alice", "bobby"), ("unfollowed", "bobby", "alice")]
