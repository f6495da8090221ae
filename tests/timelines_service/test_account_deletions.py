"""The timelines' part of deleting an account: what is hidden at once, and what is swept away."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from common.errors import NotFound
from common.fields import new_id
from tests.timelines_service.conftest import Users
from timelines_service import account_deletions
from timelines_service.events import AccountDeleted, FollowChanged
from timelines_service.models import AcceptedPost
from timelines_service.store import TimelinesStore

Headers = Callable[[str], dict[str, str]]

# What alice has in any table but the one that says that she is gone. Her deleted posts are noted by id alone.
LEFT = text("""
    SELECT 'posts' FROM posts WHERE username = 'alice' OR original_author = 'alice'
    UNION ALL SELECT 'tags' FROM post_tags WHERE username = 'alice'
    UNION ALL SELECT 'versions' FROM post_versions
    UNION ALL SELECT 'bookmarks' FROM bookmarks
    UNION ALL SELECT 'pins' FROM pins WHERE username = 'alice'
    UNION ALL SELECT 'keys' FROM idempotency_keys WHERE username = 'alice'
    UNION ALL SELECT 'notifications' FROM notifications WHERE 'alice' IN (recipient, actor)
    UNION ALL SELECT 'reads' FROM notification_reads WHERE recipient = 'alice'
""")
CONFIRMATIONS = text("SELECT payload FROM timelines_outbox WHERE tube = 'events.users'")
# As if the ten seconds between the two sweeps had passed.
LATER = text("UPDATE deleted_users SET swept_at = swept_at - interval '11 seconds'")


def post(username: str = "alice", words: str = "Hello, #world", reply_to: UUID | None = None) -> AcceptedPost:
    return AcceptedPost(
        id=new_id(), username=username, text=words, created_at=datetime.now(UTC), in_reply_to=reply_to
    )


def add(store: TimelinesStore, *given: Any) -> UUID:
    return store.add(post(*given)).id


def delete(store: TimelinesStore) -> None:
    store.events.apply(AccountDeleted(kind="account_deleted", username="alice", at=datetime.now(UTC)))


def sweep(store: TimelinesStore) -> None:
    """All that there is to do now."""
    while store.account_deletions.sweep() or store.deletions.sweep():
        pass


def finish(store: TimelinesStore) -> None:
    sweep(store)
    store._database.rows(LATER, {})
    sweep(store)


def rows(store: TimelinesStore, statement: Any) -> list[Any]:
    return [value for (value,) in store._database.rows(statement, {})]


def live(store: TimelinesStore) -> dict[str, UUID]:
    """Let alice and bobby do all that users do; alice's first post, bobby's, and alice's reply to it."""
    first, theirs = add(store), add(store, "bobby", "Good morning")
    reply = add(store, "alice", "And to you", theirs)
    store.add(post(), "key")
    store.edits.edit(first, "alice", "Hello, #all")
    store.reposts.add(first, "bobby")
    store.reposts.add(theirs, "alice")
    store.bookmarks.add(first, "bobby")
    store.bookmarks.add(theirs, "alice")
    store.pins.add(first, "alice")
    add(store, "bobby", "You too", reply)
    store.events.apply(
        FollowChanged(kind="followed", follower="bobby", followee="alice", at=datetime.now(UTC))
    )
    store.inbox.mark_read("alice", new_id())
    return {"first": first, "theirs": theirs, "reply": reply}


def test_nothing_of_a_deleted_user_is_shown_before_it_is_swept(
    client: TestClient, store: TimelinesStore, users: Users, as_user: Headers
) -> None:
    ids = live(store)
    users.followees = {"bobby": ["alice"], "carol": ["alice", "bobby"]}
    delete(store)

    for path in ("", "/versions", "/replies", "/context", "/reposters"):
        assert client.get(f"/posts/id/{ids['first']}{path}").status_code == 404, path
    assert client.get("/posts/alice").json()["code"] == "user_not_found"
    assert client.get("/posts/alice?pinned=true").json()["code"] == "user_not_found"
    shown = {
        path: [(one["username"], one["text"]) for one in client.get(path, headers=as_user("carol")).json()]
        for path in (
            "/posts", f"/posts?id={ids['first']}&id={ids['theirs']}", "/posts/bobby", "/posts/home/carol",
            "/tags/all", "/tags/world", f"/posts/id/{ids['theirs']}/replies",
        )
    }  # fmt: skip
    theirs, again = ("bobby", "Good morning"), ("bobby", "You too")
    assert shown == {
        "/posts": [again, theirs],
        f"/posts?id={ids['first']}&id={ids['theirs']}": [theirs],
        "/posts/bobby": [again, theirs],
        "/posts/home/carol": [again, theirs],
        "/tags/all": [],
        "/tags/world": [],
        f"/posts/id/{ids['theirs']}/replies": [],
    }
    assert client.get("/tags").json() == []
    assert client.get("/posts/counts?username=alice").json() == []
    assert client.get(f"/posts/id/{ids['theirs']}/reposters").json() == []
    assert client.get("/bookmarks", headers=as_user("bobby")).json() == []
    assert client.get("/notifications", headers=as_user("bobby")).json() == []
    assert client.get("/notifications/unread", headers=as_user("bobby")).json() == {"count": 0}


def test_posts_of_a_deleted_user_are_there_for_nobody_to_change(
    client: TestClient, store: TimelinesStore, as_user: Headers
) -> None:
    first = add(store)
    delete(store)

    for method, path in (
        ("DELETE", ""), ("POST", "/repost"), ("PUT", "/bookmark"), ("PUT", "/pin"), ("PATCH", ""),
    ):  # fmt: skip
        body = {"text": "Mine"} if method == "PATCH" else None
        answer = client.request(method, f"/posts/id/{first}{path}", json=body, headers=as_user("bobby"))
        assert answer.json()["code"] == "post_not_found", (method, path)
    reply = {"text": "Where are you?", "in_reply_to": str(first)}
    assert client.post("/posts", json=reply, headers=as_user("bobby")).json()["code"] == "post_not_found"


def test_all_of_a_deleted_user_is_swept_away_and_confirmed_once(store: TimelinesStore) -> None:
    live(store)
    delete(store)
    finish(store)

    assert rows(store, LEFT) == []
    assert rows(store, CONFIRMATIONS) == [
        {"kind": "account_cleared", "username": "alice", "service": "timelines"}
    ]


def test_counts_of_others_are_exact_when_it_is_swept(store: TimelinesStore) -> None:
    theirs = add(store, "bobby", "Good morning")
    for _ in range(3):
        add(store, "alice", "Hello", add(store, "alice", "Hello", theirs))
    add(store, "carol", "Hello", theirs)
    for name in ("alice", "carol"):
        store.reposts.add(theirs, name)
    delete(store)
    finish(store)

    shown = store.post(theirs)
    assert (shown.replies_count, shown.reposts_count) == (1, 1)


def test_many_posts_are_swept_in_steps_of_a_batch(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_deletions, "POSTS_BATCH", 2)
    for _ in range(7):
        add(store)
    delete(store)
    left = []
    while store.account_deletions.sweep():
        left.append(len([one for one in rows(store, LEFT) if one == "posts"]))

    assert left == [5, 3, 1, 0, 0]


def test_nothing_is_confirmed_before_what_was_under_way_can_have_ended(store: TimelinesStore) -> None:
    add(store)
    delete(store)
    sweep(store)

    assert rows(store, CONFIRMATIONS) == []


def test_a_post_that_was_under_way_while_its_author_was_deleted_is_swept_away(store: TimelinesStore) -> None:
    with store._database.transaction() as connection:
        connection.execute(
            text("INSERT INTO posts (id, username, text, created_at) VALUES (:id, 'alice', 'Hello', now())"),
            {"id": new_id()},
        )
        delete(store)
        sweep(store)
    assert rows(store, LEFT) == ["posts"]
    store._database.rows(LATER, {})
    sweep(store)

    assert rows(store, LEFT) == []
    assert len(rows(store, CONFIRMATIONS)) == 1


def test_what_a_deleted_user_writes_late_is_not_stored(store: TimelinesStore) -> None:
    theirs = add(store, "bobby", "Good morning")
    delete(store)
    finish(store)

    add(store)
    add(store, "alice", "Hello", theirs)
    store.add(post(), "key")
    store.add_missing([post(), post("alice", "Hello", theirs), post("carol", "Hello", theirs)])
    with pytest.raises(NotFound):
        store.reposts.add(theirs, "alice")
    store.bookmarks.add(theirs, "alice")
    for pair in ({"follower": "alice", "followee": "bobby"}, {"follower": "bobby", "followee": "alice"}):
        store.events.apply(FollowChanged(kind="followed", at=datetime.now(UTC), **pair))

    assert set(rows(store, LEFT)) <= {"keys"}
    assert (store.post(theirs).replies_count, store.post(theirs).reposts_count) == (1, 0)


def test_a_deletion_that_is_told_again_is_confirmed_again(store: TimelinesStore) -> None:
    delete(store)
    delete(store)
    finish(store)
    assert len(rows(store, CONFIRMATIONS)) == 1
    delete(store)
    sweep(store)

    assert len(rows(store, CONFIRMATIONS)) == 2


def test_a_user_who_goes_on_posting_while_being_deleted_leaves_nothing(store: TimelinesStore) -> None:
    theirs = add(store, "bobby", "Good morning")
    is_over = Event()

    def go_on() -> int:
        written = 0
        while not is_over.is_set():
            add(store, "alice", "Hello, #world", theirs)
            written += 1
        return written

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(go_on) for _ in range(2)]
        try:
            wait(writing, timedelta(seconds=0.3).total_seconds())
            delete(store)
            sweep(store)
        finally:
            is_over.set()
        assert all(one.result() for one in writing)
    finish(store)

    assert rows(store, LEFT) == []
    assert store.post(theirs).replies_count == 0


def test_two_deletions_and_replies_at_once_neither_deadlock_nor_miscount(store: TimelinesStore) -> None:
    theirs = [add(store, "bobby", "Good morning") for _ in range(4)]
    for name in ("alice", "carol"):
        for _ in range(5):
            for one in theirs:
                add(store, name, "Hello", one)
    delete(store)
    store.events.apply(AccountDeleted(kind="account_deleted", username="carol", at=datetime.now(UTC)))
    with ThreadPoolExecutor(3) as pool:
        replying = pool.submit(lambda: [add(store, "dave", "Hello", one) for one in theirs for _ in range(5)])
        for done in (pool.submit(sweep, store), pool.submit(sweep, store), replying):
            done.result()

    assert [store.post(one).replies_count for one in theirs] == [5] * 4
