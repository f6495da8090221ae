"""Posts on a real PostgreSQL."""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text

from common.errors import Conflict, NotFound, Unprocessable
from common.fields import new_id
from common.postgres.outbox import RecordedEvent
from timelines_service import deletions, home_timelines, idempotency
from timelines_service import store as module
from timelines_service.idempotency import KEY_TTL
from timelines_service.models import Post
from timelines_service.post_query import Page
from timelines_service.store import TimelinesStore
from timelines_service.threads import Reach


def _post(username: str = "alice", words: str = "Hello!", at: datetime | None = None) -> Post:
    return Post(id=new_id(), username=username, text=words, created_at=at or datetime.now(UTC))


def test_a_post_is_found_as_it_was_stored(store: TimelinesStore) -> None:
    post = store.add(_post(words="Hé\n😀"))

    assert store.post(post.id) == post


def test_an_unknown_post_is_not_found(store: TimelinesStore) -> None:
    with pytest.raises(NotFound):
        store.post(new_id())


def test_posts_are_newest_first_and_go_on_before_the_last_one_seen(store: TimelinesStore) -> None:
    ids = [store.add(_post()).id for _ in range(5)][::-1]

    assert [post.id for post in store.newest(Page(2))] == ids[:2]
    assert [post.id for post in store.newest(Page(9, ids[1]))] == ids[2:]


def test_a_users_posts_are_theirs_alone(store: TimelinesStore) -> None:
    mine = store.add(_post("alice"))
    store.add(_post("bobby"))

    assert store.newest_by_user("alice", Page(9)) == [mine]


def test_the_same_key_stores_one_post_however_many_come_at_once(store: TimelinesStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: store.add(_post(), "key"), range(16)))

    assert len({post.id for post in stored}) == 1
    assert store.newest(Page(9)) == stored[:1]


def test_the_same_key_with_another_text_is_refused_and_stores_nothing(store: TimelinesStore) -> None:
    first = store.add(_post(), "key")

    with pytest.raises(Unprocessable):
        store.add(_post(words="Other"), "key")
    assert store.newest(Page(9)) == [first]


def test_another_users_key_is_another_key(store: TimelinesStore) -> None:
    store.add(_post("alice"), "key")
    store.add(_post("bobby"), "key")

    assert len(store.newest(Page(9))) == 2


def test_an_old_key_is_forgotten_and_a_young_one_kept(store: TimelinesStore) -> None:
    old = _post(at=datetime.now(UTC) - KEY_TTL - timedelta(minutes=1))
    store.add(old, "old")
    store.add(_post(), "young")
    store.delete_expired_keys()

    with store._database.autocommit() as connection:
        keys = connection.execute(text("SELECT key FROM idempotency_keys")).scalars().all()
    assert keys == ["young"]


def test_what_was_stored_already_is_not_stored_again(store: TimelinesStore) -> None:
    posts = [_post() for _ in range(3)]
    store.add_missing(posts[:2])
    store.add_missing(posts)

    assert store.newest(Page(9)) == posts[::-1]


@pytest.mark.parametrize("followees", [0, 1, 5, 60, 200])
@pytest.mark.parametrize("window", [10, 2000])
def test_a_home_timeline_is_what_a_plain_query_finds(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch, followees: int, window: int
) -> None:
    monkeypatch.setattr(module, "FROM_RECENT", home_timelines.from_recent(window))
    seeded = random.Random(followees)
    authors = [f"author{number}" for number in range(300)]
    for _ in range(10):
        store.add_missing([_post(seeded.choice(authors)) for _ in range(100)])
    chosen = seeded.sample(authors, followees)
    everything = [post for post in store.newest(Page(1000)) if post.username in chosen]

    assert store.newest_by_users(chosen, Page(21)) == everything[:21]
    middle = everything[len(everything) // 2].id if everything else None
    expected = [post for post in everything if middle and post.id < middle][:21]
    assert store.newest_by_users(chosen, Page(21, middle))[: len(expected)] == (expected if middle else [])


def test_a_batch_takes_no_more_statements_than_two(store: TimelinesStore) -> None:
    statements: list[str] = []
    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    store.add_missing([_post() for _ in range(100)])

    assert len(statements) == 2


def test_no_more_keys_are_forgotten_at_once_than_said(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "KEY_DELETE_BATCH", 2)
    for number in range(5):
        store.add(_post(at=datetime.now(UTC) - KEY_TTL - timedelta(minutes=5 - number)), str(number))

    store.delete_expired_keys()

    with store._database.autocommit() as connection:
        keys = connection.execute(text("SELECT key FROM idempotency_keys ORDER BY key")).scalars().all()
    assert keys == ["2", "3", "4"]


def test_a_key_works_again_once_it_is_forgotten(store: TimelinesStore) -> None:
    store.add(_post(at=datetime.now(UTC) - KEY_TTL - timedelta(minutes=1)), "key")
    store.delete_expired_keys()
    store.add(_post(words="Other"), "key")

    assert len(store.newest(Page(9))) == 2


def _is_shown_at_home(post: Post, followees: Sequence[str], hidden: str, everything: Sequence[Post]) -> bool:
    if post.username not in followees:
        return False
    if post.repost_of is None:
        return True
    if post.repost_of.username in [*followees, hidden]:
        return False
    same = [one for one in everything if one.repost_of and one.repost_of.id == post.repost_of.id]
    return post.id == min(one.id for one in same if one.username in followees)


@pytest.mark.parametrize("followees", [1, 5, 60, 200])
@pytest.mark.parametrize("window", [10, 2000])
def test_a_home_timeline_has_each_post_once_as_itself_or_as_the_oldest_repost(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch, followees: int, window: int
) -> None:
    monkeypatch.setattr(module, "FROM_RECENT", home_timelines.from_recent(window))
    seeded = random.Random(followees)
    authors = [f"author{number}" for number in range(300)]
    originals = [_post(seeded.choice(authors)) for _ in range(100)]
    store.add_missing(originals)
    for _ in range(400):
        store.reposts.add(seeded.choice(originals).id, seeded.choice(authors))
    for gone in originals[:10]:
        store.deletions.delete(gone.id, gone.username)
    chosen, hidden = seeded.sample(authors, followees), originals[-1].username
    chosen = [name for name in chosen if name != hidden]
    everything = [post for name in authors for post in store.newest_by_user(name, Page(1000))]
    everything.sort(key=lambda post: post.id, reverse=True)
    expected = [post for post in everything if _is_shown_at_home(post, chosen, hidden, everything)]

    assert store.newest_by_users(chosen, Page(1000), hidden=[hidden]) == expected
    assert store.newest_by_users(chosen, Page(21), hidden=[hidden]) == expected[:21]
    if len(expected) > 8:
        middle = len(expected) // 2
        newer = store.newest_by_users(chosen, Page(3, after=expected[middle].id), hidden=[hidden])
        assert newer == expected[middle - 3 : middle]


def test_replies_are_counted_also_in_a_batch(store: TimelinesStore) -> None:
    first, second = (store.add(_post()) for _ in "ab")
    replies = [_post() for _ in range(5)]
    for reply in replies:
        reply.in_reply_to = first.id if reply.id != replies[0].id else second.id

    store.add(replies[0])
    store.add_missing(replies)
    store.add_missing(replies)

    assert [store.post(one.id).replies_count for one in (first, second)] == [4, 1]


def test_a_deleted_post_stays_deleted_when_its_job_comes_again(store: TimelinesStore) -> None:
    parent = store.add(_post())
    reply = _post().model_copy(update={"in_reply_to": parent.id})
    store.add_missing([reply])
    store.deletions.delete(reply.id, "alice")

    store.add_missing([reply])

    assert store.newest(Page(9)) == [parent]


def _events(store: TimelinesStore) -> list[tuple[str, dict[str, Any]]]:
    """What other services are told: the tube, and the event without its time."""
    events: list[RecordedEvent] = []
    while store.outbox.relay(events.append):
        pass
    return [(one.tube, {key: one.payload[key] for key in one.payload if key != "at"}) for one in events]


def test_likes_is_told_of_a_deleted_post_once(store: TimelinesStore) -> None:
    post = store.add(_post())
    store.deletions.delete(post.id, "alice")
    with pytest.raises(NotFound):
        store.deletions.delete(post.id, "alice")

    assert _events(store) == [("events.likes", {"kind": "post_deleted", "post_id": str(post.id)})]


@pytest.mark.parametrize("way", ["delete the repost", "undo it", "delete the original"])
def test_likes_is_told_of_a_repost_that_goes(store: TimelinesStore, way: str) -> None:
    original = store.add(_post())
    repost, _ = store.reposts.add(original.id, "bobby")

    match way:
        case "delete the repost":
            store.deletions.delete(repost, "bobby")
        case "undo it":
            store.reposts.remove(original.id, "bobby")
        case _:
            store.deletions.delete(original.id, "alice")
            assert not store.deletions.sweep() or not store.deletions.sweep()

    assert _events(store)[-1] == ("events.likes", {"kind": "post_deleted", "post_id": str(repost)})


def test_what_a_deleted_post_leaves_is_swept_away_in_batches(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "BATCH", 2)
    post = store.add(_post())
    store.edits.edit(post.id, "alice", "Other")
    for number in range(5):
        store.reposts.add(post.id, f"reposter{number}")
        store.bookmarks.add(post.id, f"reposter{number}")
    store.deletions.delete(post.id, "alice")

    batches = 0
    while store.deletions.sweep():
        batches += 1

    assert batches == 3
    with store._database.autocommit() as connection:
        for table in ("posts", "post_versions", "bookmarks"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_fifty_edits_at_once_keep_every_text(store: TimelinesStore) -> None:
    post = store.add(_post(words="text 0"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.edits.edit(post.id, "alice", f"text {n}"), range(1, 51)))

    versions = store.edits.versions(post.id, 100)
    last = store.post(post.id)

    assert [one.version for one in versions] == list(range(50, 0, -1))
    assert {one.text for one in versions} | {last.text} == {f"text {n}" for n in range(51)}


def test_a_deletion_while_it_is_edited_is_final(store: TimelinesStore) -> None:
    post = store.add(_post())

    def edit(number: int) -> bool:
        try:
            store.edits.edit(post.id, "alice", f"text {number}")
        except NotFound:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        edits = [pool.submit(edit, number) for number in range(20)]
        store.deletions.delete(post.id, "alice")
        [one.result() for one in edits]

    assert store.posts([post.id]) == []
    assert not edit(99)


def test_a_post_is_reposted_by_each_user_once_however_many_come_at_once(store: TimelinesStore) -> None:
    post = store.add(_post())
    names = [f"reposter{number % 10}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: store.reposts.add(post.id, name), names))

    assert sum(is_new for _, is_new in found) == 10
    assert store.post(post.id).reposts_count == 10


def test_reposting_and_deleting_at_once_leaves_the_right_count(store: TimelinesStore) -> None:
    post = store.add(_post())

    def turn(number: int) -> None:
        name = f"reposter{number % 3}"
        repost_id, _ = store.reposts.add(post.id, name)
        try:
            if number % 2:
                store.deletions.delete(repost_id, name)
            else:
                store.reposts.remove(post.id, name)
        except NotFound:
            pass  # another turn was first

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(turn, range(40)))

    assert store.post(post.id).reposts_count == len(store.reposts.reposters(post.id, Page(99)))


def test_no_more_than_five_pins_however_many_come_at_once(store: TimelinesStore) -> None:
    ids = [store.add(_post()).id for _ in range(12)]

    def pin(post_id: UUID) -> bool:
        try:
            store.pins.add(post_id, "alice")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        pinned = list(pool.map(pin, ids))

    assert sum(pinned) == len(store.pins.posts("alice", None)) == 5


def test_a_thread_shows_the_nearest_replies_each_after_what_it_answers(store: TimelinesStore) -> None:
    root = store.add(_post())
    ids = {None: root.id}
    for name, parent in (("a", None), ("b", None), ("a1", "a"), ("b1", "b"), ("a2", "a"), ("a11", "a1")):
        reply = _post(words=name).model_copy(update={"in_reply_to": ids[parent]})
        ids[name] = store.add(reply).id

    def texts(reach: Reach) -> list[str]:
        return [post.text for post in store.threads.descendants(root.id, reach, None)]

    assert texts(Reach(9, 9, 9)) == ["a", "a1", "a11", "a2", "b", "b1"]
    assert texts(Reach(9, 9, 2)) == ["a", "a1", "a2", "b", "b1"]
    assert texts(Reach(9, 3, 9)) == ["a", "a1", "b"]
    above = store.threads.ancestors(ids["a11"], Reach(2, 9, 9), None)
    assert [post.text for post in above] == ["a", "a1"]
