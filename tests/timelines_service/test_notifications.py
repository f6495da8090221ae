"""What users are told, once for each cause, in whatever order the causes come."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from common.fields import new_id
from tests.polling import eventually
from timelines_service.events import FollowChanged
from timelines_service.models import AcceptedPost
from timelines_service.notifications import Cause, tell
from timelines_service.store import TimelinesStore

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
STANDING = text("SELECT recipient, kind, actor FROM notifications WHERE NOT is_withdrawn ORDER BY id")
WAITING = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


def _change(kind: str, minutes: int) -> FollowChanged:
    at = FIRST + timedelta(minutes=minutes)
    return FollowChanged(kind=kind, follower="bobby", followee="alice", at=at)


def _standing(store: TimelinesStore) -> list[tuple[str, str, str]]:
    return [tuple(row) for row in store._database.rows(STANDING, {})]


def _post(store: TimelinesStore, username: str, in_reply_to: UUID | None = None) -> UUID:
    post = AcceptedPost(
        id=new_id(), username=username, text="Hello!", created_at=datetime.now(UTC), in_reply_to=in_reply_to
    )
    store.add(post)
    return post.id


TOLD = [("alice", "follow", "bobby")]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([("followed", 1), ("followed", 1)], TOLD),
        ([("followed", 1), ("unfollowed", 2)], []),
        ([("unfollowed", 2), ("followed", 1)], []),
        ([("followed", 1), ("unfollowed", 2), ("followed", 1)], []),
        ([("followed", 1), ("unfollowed", 2), ("followed", 3)], TOLD),
        ([("followed", 1), ("followed", 3), ("unfollowed", 2)], TOLD),
        ([("followed", 3), ("unfollowed", 2), ("followed", 1)], TOLD),
    ],
)
def test_the_newest_change_counts_however_often_and_in_whatever_order_they_come(
    store: TimelinesStore, kinds: list[tuple[str, int]], expected: list[tuple[str, str, str]]
) -> None:
    for kind in kinds:
        store.events.apply(_change(*kind))

    assert _standing(store) == expected


def test_a_reply_tells_the_author_of_the_post(store: TimelinesStore) -> None:
    _post(store, "bobby", in_reply_to=_post(store, "alice"))

    assert _standing(store) == [("alice", "reply", "bobby")]


def test_each_reply_tells_of_itself(store: TimelinesStore) -> None:
    post = _post(store, "alice")
    for _ in range(2):
        _post(store, "bobby", in_reply_to=post)

    assert _standing(store) == [("alice", "reply", "bobby")] * 2


def test_nobody_is_told_of_their_own_doing(store: TimelinesStore) -> None:
    post = _post(store, "alice")
    _post(store, "alice", in_reply_to=post)
    store.reposts.add(post, "alice")

    assert _standing(store) == []


def test_a_queued_reply_that_comes_twice_tells_once(store: TimelinesStore) -> None:
    reply = AcceptedPost(
        id=new_id(),
        username="bobby",
        text="Yes!",
        created_at=datetime.now(UTC),
        in_reply_to=_post(store, "alice"),
    )
    for _ in range(2):
        store.add_missing([reply])

    assert _standing(store) == [("alice", "reply", "bobby")]


def test_a_repost_tells_the_author_until_it_is_undone(store: TimelinesStore) -> None:
    post = _post(store, "alice")
    store.reposts.add(post, "bobby")
    store.reposts.add(post, "bobby")
    told = _standing(store)
    store.reposts.remove(post, "bobby")

    assert told == [("alice", "repost", "bobby")]
    assert _standing(store) == []


def test_a_repost_that_is_made_and_undone_at_once_ends_with_what_is_so(store: TimelinesStore) -> None:
    post = _post(store, "alice")
    with ThreadPoolExecutor(8) as threads:
        for number in range(40):
            threads.submit(store.reposts.add if number % 2 else store.reposts.remove, post, "bobby")

    is_reposted = store.post(post).reposts_count == 1
    assert _standing(store) == [("alice", "repost", "bobby")] * is_reposted


def test_a_deleted_reply_tells_nothing_any_more(store: TimelinesStore) -> None:
    reply = _post(store, "bobby", in_reply_to=_post(store, "alice"))
    store.deletions.delete(reply, "bobby")
    while store.deletions.sweep():
        pass

    assert _standing(store) == []


def test_what_others_did_with_a_deleted_post_is_told_no_more(store: TimelinesStore) -> None:
    post = _post(store, "alice")
    store.reposts.add(post, "bobby")
    store.deletions.delete(post, "alice")
    while store.deletions.sweep():
        pass

    assert _standing(store) == []


def test_the_notifications_of_one_user_commit_in_the_order_of_their_ids(store: TimelinesStore) -> None:
    later = _change("followed", 1).model_copy(update={"follower": "carol"})
    with ThreadPoolExecutor(1) as other:
        with store._database.transaction() as connection:
            tell(connection, Cause("follow", "alice", "bobby"))
            applied = other.submit(store.events.apply, later)
            eventually(lambda: store._database.rows(WAITING, {}))
        applied.result()

    assert _standing(store) == [("alice", "follow", "bobby"), ("alice", "follow", "carol")]


def test_an_id_is_newer_than_those_of_a_clock_that_is_ahead(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = UUID(int=new_id().int + (1000 << 80))
    with monkeypatch.context() as patch:
        patch.setattr("timelines_service.notifications.new_id", lambda: ahead)
        store.events.apply(_change("followed", 1))
    _post(store, "bobby", in_reply_to=_post(store, "alice"))

    assert [kind for _, kind, _ in _standing(store)] == ["follow", "reply"]


def test_users_who_answer_each_other_at_once_do_not_deadlock(store: TimelinesStore) -> None:
    names = ["alice", "bobby", "carol", "david"]
    posts = {name: _post(store, name) for name in names}
    replies = [
        AcceptedPost(
            id=new_id(), username=name, text="Hi!", created_at=datetime.now(UTC), in_reply_to=posts[other]
        )
        for name in names
        for other in names
    ]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(store.add_missing, (replies, replies[::-1], replies[::2], replies[1::2])))

    assert len(_standing(store)) == 12
