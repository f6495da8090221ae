"""The inbox: what it shows, counts and forgets."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from common.fields import first_id, new_id
from tests.pages import pages
from tests.polling import eventually, succeeds
from tests.timelines_service.conftest import Users
from timelines_service.events import EVENT, Event, LikeChanged
from timelines_service.inbox import KEPT_FOR, MAX_COUNT, TOMBSTONES_KEPT_FOR
from timelines_service.models import AcceptedPost
from timelines_service.store import TimelinesStore

AT = datetime(2026, 1, 1, tzinfo=UTC)
AGE = text("UPDATE notifications SET id = :id WHERE actor = :actor")
FILL = text("""
    INSERT INTO notifications (id, recipient, kind, actor, subject_id, changed_at)
    SELECT gen_random_uuid(), 'alice', 'follow', 'user' || n, gen_random_uuid(), now()
    FROM generate_series(1, :count) AS n
""")


@pytest.fixture
def alice(as_user: Callable[[str], dict[str, str]], users: Users) -> dict[str, str]:
    users.followees["alice"] = []
    return as_user("alice")


@pytest.fixture
def apply(store: TimelinesStore) -> Callable[..., None]:
    """Applies an event, which happened so many minutes after the first."""

    def apply(kind: str, minutes: int = 0, **fields: object) -> None:
        at = AT + timedelta(minutes=minutes)
        store.events.apply(EVENT.validate_python({"kind": kind, "at": at} | fields))

    return apply


@pytest.fixture
def follow(apply: Callable[..., None]) -> Callable[..., None]:
    return lambda *names: [apply("followed", follower=name, followee="alice") for name in names]


@pytest.fixture
def post(store: TimelinesStore) -> Callable[..., UUID]:
    """Stores a post, and returns its id."""

    def post(username: str = "alice", in_reply_to: UUID | None = None) -> UUID:
        accepted = AcceptedPost(
            id=new_id(), username=username, text="Hi!", created_at=AT, in_reply_to=in_reply_to
        )
        return store.add(accepted).id

    return post


@pytest.fixture
def read(client: TestClient, alice: dict[str, str]) -> Callable[..., list[dict[str, Any]]]:
    """Alice's inbox."""

    def read(query: str = "") -> list[dict[str, Any]]:
        response = client.get(f"/notifications{query}", headers=alice)
        assert response.status_code == 200, response.text
        found: list[dict[str, Any]] = response.json()
        return found

    return read


@pytest.fixture
def count(client: TestClient, alice: dict[str, str]) -> Callable[[], int]:
    """How many alice has not read."""
    return lambda: int(client.get("/notifications/unread", headers=alice).json()["count"])


def _surely(store: TimelinesStore, call: Callable[[], None]) -> None:
    """Once more after an outage: a busy server may take too long."""
    eventually(lambda: succeeds(call, store.outages))


def _actors(found: list[dict[str, Any]]) -> list[str]:
    return [one["actor"] for one in found]


def test_each_says_who_did_what_and_whether_it_was_read(read, apply, post) -> None:
    liked = post()
    apply("liked", username="bobby", post_id=liked)

    [found] = read()

    made = datetime.fromisoformat(found.pop("created_at"))
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert UUID(found.pop("id")).version == 7
    assert found == {"kind": "like", "actor": "bobby", "post_id": str(liked), "read": False}


def test_a_follow_is_about_no_post(read, follow) -> None:
    follow("bobby")

    assert "post_id" not in read()[0]


def test_nobody_sees_what_others_were_told(client, as_user, users, follow) -> None:
    users.followees["carol"] = []
    follow("bobby")

    assert client.get("/notifications", headers=as_user("carol")).json() == []


@pytest.mark.parametrize(("query", "start"), [("?limit=2", 0), ("?limit=2&kind=follow&kind=like", 0)])
def test_the_pages_show_each_once_both_ways(client, alice, follow, query, start) -> None:
    names = [f"user{number}" for number in range(7)]
    follow(*names)

    older = [page.json() for page in pages(client, f"/notifications{query}", headers=alice)]
    last = older[-1][-1]["id"]
    newer = [
        page.json() for page in pages(client, f"/notifications{query}&after={last}", "prev", headers=alice)
    ]

    assert [name for page in older for name in _actors(page)] == names[::-1]
    assert [name for page in reversed(newer) for name in _actors(page)] == names[:0:-1]


def test_a_cursor_may_be_gone(client, alice, read, follow) -> None:
    follow("bobby", "carol", "david")
    middle = read()[1]["id"]
    client.delete(f"/notifications/{middle}", headers=alice)

    assert _actors(read(f"?before={middle}")) == ["bobby"]
    assert _actors(read(f"?after={middle}")) == ["david"]


def test_kinds_are_shown_alone_or_together(read, apply, post, follow) -> None:
    mine = post()
    follow("bobby")
    apply("liked", username="carol", post_id=mine)
    post("david", in_reply_to=mine)

    assert _actors(read("?kind=like")) == ["carol"]
    assert _actors(read("?kind=follow&kind=reply")) == ["david", "bobby"]
    assert read("?kind=mention") == []


def test_an_unknown_kind_is_422(client, alice) -> None:
    assert client.get("/notifications?kind=poke", headers=alice).status_code == 422


def test_what_is_read_counts_no_more(client, alice, read, count, follow) -> None:
    follow("bobby", "carol", "david")
    middle = read()[1]["id"]
    before = count()
    answer = client.post("/notifications/read", json={"up_to": middle}, headers=alice)

    assert (before, answer.status_code, count()) == (3, 204, 1)
    assert [one["read"] for one in read()] == [False, True, True]


def test_what_was_read_stays_read(client, alice, read, count, follow) -> None:
    follow("bobby", "carol")
    newest, oldest = (one["id"] for one in read())
    for up_to in (newest, oldest):
        client.post("/notifications/read", json={"up_to": up_to}, headers=alice)

    assert count() == 0


def test_a_position_in_the_future_reads_only_what_is_there(client, alice, count, follow) -> None:
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    follow("bobby")
    client.post("/notifications/read", json={"up_to": last}, headers=alice)
    follow("carol")

    assert count() == 1


def test_reading_an_empty_inbox_changes_nothing(client, alice, count, follow) -> None:
    answer = client.post("/notifications/read", json={"up_to": str(new_id())}, headers=alice)
    follow("bobby")

    assert (answer.status_code, count()) == (204, 1)


def test_the_count_ends_at_a_thousand(store, count) -> None:
    store._database.rows(FILL, {"count": MAX_COUNT + 1})

    assert count() == MAX_COUNT


def test_what_was_dismissed_is_gone(client, alice, read, count, follow) -> None:
    follow("bobby")
    path = f"/notifications/{read()[0]['id']}"
    answers = [client.delete(path, headers=alice).status_code for _ in range(2)]

    assert (answers, read(), count()) == ([204, 404], [], 0)


def test_what_was_dismissed_does_not_come_back_with_its_event(client, alice, read, follow) -> None:
    follow("bobby")
    client.delete(f"/notifications/{read()[0]['id']}", headers=alice)
    follow("bobby")

    assert read() == []


def test_others_notifications_cannot_be_dismissed(client, as_user, alice, read, follow) -> None:
    follow("bobby")
    answer = client.delete(f"/notifications/{read()[0]['id']}", headers=as_user("carol"))

    assert answer.status_code == 404
    assert _actors(read()) == ["bobby"]


@pytest.mark.parametrize("query", ["", "?kind=follow"])
def test_hidden_users_are_in_no_list_and_no_count(users, read, count, follow, query) -> None:
    follow("bobby", "carol")
    users.hidden["alice"] = ["carol"]

    assert (_actors(read(query)), count()) == (["bobby"], 1)


def test_who_is_no_longer_hidden_is_back(users, read, follow) -> None:
    follow("bobby")
    users.hidden["alice"] = ["bobby"]
    hidden = read()
    users.hidden["alice"] = []

    assert (hidden, _actors(read())) == ([], ["bobby"])


def test_while_the_users_service_is_away_the_last_known_are_hidden(users, read, count, follow) -> None:
    follow("bobby", "carol")
    users.hidden["alice"] = ["carol"]
    read()
    users.is_away = True

    assert (_actors(read()), count()) == (["bobby"], 1)


@pytest.mark.parametrize("path", ["/notifications", "/notifications/unread"])
def test_without_knowing_who_is_hidden_nothing_is_shown(client, alice, users, path) -> None:
    users.is_away = True

    assert client.get(path, headers=alice).status_code == 503


@pytest.mark.parametrize("query", ["", "?kind=like"])
def test_nothing_about_a_post_is_shown_from_its_deletion_on(read, count, apply, store, post, query) -> None:
    deleted = post()
    apply("liked", username="bobby", post_id=deleted)
    store.deletions.delete(deleted, "alice")

    assert (read(query), count()) == ([], 0)


def test_a_like_of_a_deleted_post_tells_nobody(read, apply, store, post) -> None:
    deleted = post()
    store.deletions.delete(deleted, "alice")
    apply("liked", username="bobby", post_id=deleted)

    assert store._database.rows(text("SELECT id FROM notifications"), {}) == []


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["liked 1", "liked 1"], ["bobby"]),
        (["liked 1", "unliked 2"], []),
        (["unliked 2", "liked 1"], []),
        (["liked 1", "liked 3", "unliked 2"], ["bobby"]),
        (["unliked 4", "liked 3", "unliked 2", "liked 1"], []),
    ],
)
def test_likes_are_told_by_their_newest_change(read, apply, post, kinds, expected) -> None:
    liked = post()
    for kind in kinds:
        name, minutes = kind.split()
        apply(name, int(minutes), username="bobby", post_id=liked)

    assert _actors(read()) == expected


def test_likes_and_unlikes_at_once_end_with_the_newest(store, read, apply, post) -> None:
    liked = post()
    with ThreadPoolExecutor(8) as threads:
        for minute in range(40):
            kind = "unliked" if minute % 2 else "liked"
            change = partial(apply, kind, minute, username="bobby", post_id=liked)
            threads.submit(_surely, store, change)

    assert read() == []


def test_likes_while_the_post_is_deleted_leave_nothing(store, apply, post) -> None:
    liked = post()
    with ThreadPoolExecutor(8) as threads:
        for number in range(40):
            threads.submit(apply, "liked", username=f"user{number}", post_id=liked)
            if number == 20:
                deleted = threads.submit(_surely, store, lambda: store.deletions.delete(liked, "alice"))
    deleted.result()
    while store.deletions.sweep():
        pass

    assert store._database.rows(text("SELECT id FROM notifications"), {}) == []


def test_the_end_of_a_poll_is_told_to_its_author_and_its_voters(client, as_user, users, read, apply) -> None:
    users.followees["bobby"] = []
    poll = {"poll_id": new_id(), "author": "alice", "recipients": ["alice", "bobby"]}
    for _ in range(2):
        apply("poll_ended", **poll)
    of_bobby = client.get("/notifications", headers=as_user("bobby")).json()

    assert [(one["kind"], one["actor"]) for one in read() + of_bobby] == [("poll_ended", "alice")] * 2


def test_the_end_of_a_poll_names_the_post_that_has_it(read, apply, store, post) -> None:
    poll_id, post_id = new_id(), post()
    store._database.rows(
        text("UPDATE posts SET poll_id = :poll WHERE id = :id"), {"poll": poll_id, "id": post_id}
    )
    apply("poll_ended", poll_id=poll_id, author="bobby", recipients=["alice"])

    assert read()[0]["post_id"] == str(post_id)


def _age(store: TimelinesStore, actor: str, age: timedelta) -> None:
    store._database.rows(AGE, {"id": first_id(datetime.now(UTC) - age), "actor": actor})


def test_notifications_are_kept_for_a_while(store, read, follow) -> None:
    follow("bobby", "carol")
    _age(store, "bobby", KEPT_FOR + timedelta(minutes=1))
    _age(store, "carol", KEPT_FOR - timedelta(minutes=1))
    store.inbox.sweep()

    assert _actors(read()) == ["carol"]


def test_tombstones_are_swept_after_a_day(store, apply, follow) -> None:
    follow("bobby", "carol", "david")
    for name in ("bobby", "carol"):
        apply("unfollowed", 1, follower=name, followee="alice")
    for name, minute in (("bobby", 1), ("carol", -1), ("david", 1)):
        _age(store, name, TOMBSTONES_KEPT_FOR + timedelta(minutes=minute))
    store.inbox.sweep()

    left = store._database.rows(text("SELECT actor FROM notifications ORDER BY actor"), {})
    assert [actor for (actor,) in left] == ["carol", "david"]


def test_a_dismissed_one_becomes_a_tombstone_when_it_is_dismissed(store, client, alice, read, follow) -> None:
    follow("bobby")
    _age(store, "bobby", timedelta(days=30))
    client.delete(f"/notifications/{read()[0]['id']}", headers=alice)
    store.inbox.sweep()
    follow("bobby")

    assert read() == []


def _event(kind: str, minutes: int, username: str, post_id: UUID) -> Event:
    at = AT + timedelta(minutes=minutes)
    return LikeChanged(kind=kind, username=username, post_id=post_id, at=at)


def test_events_that_are_applied_together_count_as_one_after_the_other(store, read, post) -> None:
    first, second = post(), post()
    store.events.apply(
        _event("unliked", 2, "bobby", first),
        _event("liked", 1, "bobby", first),
        _event("liked", 1, "carol", second),
        _event("liked", 3, "carol", second),
        _event("unliked", 2, "carol", second),
        _event("liked", 1, "david", new_id()),
    )

    assert [(one["actor"], one["post_id"]) for one in read()] == [("carol", str(second))]


def test_batches_of_events_in_opposite_orders_do_not_deadlock(store, post) -> None:
    posts = [post(f"author{number}") for number in range(20)]
    batches = [[_event("liked", minute, "bobby", one) for one in posts] for minute in range(6)]
    with ThreadPoolExecutor(6) as threads:
        done = [
            threads.submit(store.events.apply, *(batch if number % 2 else batch[::-1]))
            for number, batch in enumerate(batches)
        ]

    assert [one.result() for one in done] == [None] * 6
    assert len(store._database.rows(text("SELECT id FROM notifications WHERE NOT is_withdrawn"), {})) == 20


def test_one_event_that_meets_a_deleted_post_holds_up_no_other(store, read, post) -> None:
    kept, deleted = post(), post()
    store.deletions.delete(deleted, "alice")
    store.events.apply(_event("liked", 1, "bobby", deleted), _event("liked", 1, "bobby", kept))

    assert [one["post_id"] for one in read()] == [str(kept)]
