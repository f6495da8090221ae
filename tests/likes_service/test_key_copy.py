"""The likes of a single Redis, moved to a cluster while they are served."""

import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from threading import Event
from uuid import UUID

import pytest
import redis

from common.errors import CannotServe, Unauthorized
from common.fields import new_id
from likes_service import key_copy, move
from likes_service.cluster import ClusterClient
from likes_service.connection import RedisClient
from likes_service.key_copy import CopyRefused, KeyCopy
from likes_service.models import Liked, OutboxEntry, ValidateLike
from likes_service.store import LikesStore
from tests.likes_service.conftest import LATER, NOW
from tests.redis_cluster import RedisCluster

THREADS = 2


@pytest.fixture
def copy(redis_url: str, cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyCopy]:
    # Small steps, so that there are several.
    monkeypatch.setattr(key_copy, "BATCH", 10)
    source, target = RedisClient.from_url(redis_url), ClusterClient([("127.0.0.1", cluster.servers[0].port)])
    yield KeyCopy(source, target)
    source.close()
    target.close()


@pytest.fixture
def after(cluster: RedisCluster) -> Iterator[LikesStore]:
    """The store in the cluster."""
    after = LikesStore.connect(cluster.url, THREADS)
    yield after
    after.close()


def _notification(post_id: UUID, username: str) -> Liked:
    return Liked(post_id=post_id, username=username, author="alice", text="Hi")


def _move(copy: KeyCopy) -> None:
    for _ in copy.run():
        pass
    copy.finish()


def _seen(store: LikesStore, posts: list[UUID], users: list[str]) -> list[object]:
    """All that a client sees."""
    views: list[object] = [store.likers(post_id, 100) for post_id in posts]
    views += [store.liked_by(user, 100) for user in users]
    return [*views, store.popular(100, None), store.counts(posts, "user1")]


def test_a_move_under_load_loses_no_like_and_doubles_none(
    redis_url: str, copy: KeyCopy, after: LikesStore
) -> None:
    store = LikesStore.connect(redis_url, THREADS)
    posts, users = [new_id() for _ in range(9)], [f"user{number}" for number in range(9)]
    is_over = Event()

    def change(seed: int) -> int:
        dice = random.Random(seed)
        changes = 0
        while not is_over.is_set():
            post_id, user = dice.choice(posts), dice.choice(users)
            try:
                if dice.random() < 0.6:
                    store.like(post_id, user, NOW, LATER)
                else:
                    store.unlike(post_id, user, LATER)
            except CannotServe:
                break
            changes += 1
        return changes

    with ThreadPoolExecutor(THREADS) as threads, ExitStack() as stack:
        stack.callback(is_over.set)
        loads = [threads.submit(change, seed) for seed in range(THREADS)]
        _move(copy)
    assert all(load.result() for load in loads)

    assert _seen(after, posts, users) == _seen(store, posts, users)
    store.close()


def test_the_command_copies_first_and_hands_over_when_it_is_told_to_finish(
    redis_url: str,
    store: LikesStore,
    cluster: RedisCluster,
    after: LikesStore,
    post_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    for options in ([], ["--finish"]):
        store.like(post_id, f"user{len(options)}", NOW, LATER)
        monkeypatch.setattr(sys, "argv", ["move", cluster.url, *options])
        move.main()

    assert after.count(post_id).count == 2


@pytest.mark.parametrize("target", ["redis://127.0.0.1:6379/0", "redis+cluster://"])
def test_the_command_takes_nothing_but_a_cluster(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.setattr(sys, "argv", ["move", target])

    with pytest.raises(SystemExit, match="2"):
        move.main()


def test_what_waits_in_the_outboxes_moves_and_is_due_as_it_was(
    store: LikesStore, copy: KeyCopy, after: LikesStore
) -> None:
    posts = [new_id() for _ in range(20)]
    for post_id in posts:
        store.like(post_id, "bob", NOW, LATER)
    store.unlike(posts[0], "bob", LATER)

    _move(copy)

    assert after.claim_overdue(LATER - timedelta(seconds=1), 100) == []
    assert {one.post_id for one in after.claim_overdue(LATER, 100)} == set(posts)


def test_who_was_mailed_or_deleted_is_remembered(
    store: LikesStore, copy: KeyCopy, after: LikesStore, post_id: UUID
) -> None:
    store.like(post_id, "bob", NOW, LATER)
    store.claim(_notification(post_id, "bob"), "worker")
    store.delete_user("carol")

    _move(copy)

    assert after.claim(_notification(post_id, "bob"), "other") == "mailed"
    with pytest.raises(Unauthorized):
        after.like(post_id, "carol", NOW, LATER)


def test_a_copy_that_was_broken_off_is_made_whole_by_the_next(
    store: LikesStore, copy: KeyCopy, after: LikesStore
) -> None:
    posts = [new_id() for _ in range(20)]
    for post_id in posts:
        store.like(post_id, "bob", NOW, LATER)
    next(copy.run())
    for post_id in posts[::2]:
        store.unlike(post_id, "bob", LATER)

    _move(copy)

    assert _seen(after, posts, ["bob"]) == _seen(store, posts, ["bob"])


def test_changes_that_a_copy_broke_off_at_are_copied_by_the_next(
    store: LikesStore, copy: KeyCopy, after: LikesStore, raw_redis: redis.Redis, post_id: UUID
) -> None:
    for _ in copy.run():
        pass
    store.like(post_id, "bob", NOW, LATER)
    # As it is when the process ends just before it copies these.
    raw_redis.rename("likes:changed", "likes:changing")

    copy.finish()

    assert _seen(after, [post_id], ["bob"]) == _seen(store, [post_id], ["bob"])


def test_the_cluster_refuses_everything_until_it_has_all(
    store: LikesStore, copy: KeyCopy, after: LikesStore, post_id: UUID
) -> None:
    for _ in copy.run():
        pass
    for call in (after.ping, lambda: after.count(post_id), lambda: after.like(post_id, "bob", NOW, LATER)):
        with pytest.raises(CannotServe, match="still copied"):
            call()
    store.like(post_id, "bob", NOW, LATER)

    copy.finish()

    assert after.count(post_id).count == 1


CHANGES: dict[str, Callable[[LikesStore, UUID], object]] = {
    "ping": lambda store, _: store.ping(),
    "like": lambda store, post_id: store.like(post_id, "carol", NOW, LATER),
    "unlike": lambda store, post_id: store.unlike(post_id, "bob", LATER),
    "undo": lambda store, post_id: store.undo(OutboxEntry(post_id, "bob", NOW)),
    "pending": lambda store, post_id: store.pending(post_id, "bob"),
    "complete": lambda store, post_id: store.complete(OutboxEntry(post_id, "bob", NOW)),
    "sweep": lambda store, _: store.claim_overdue(LATER, 9),
    "claim": lambda store, post_id: store.claim(_notification(post_id, "bob"), "worker"),
    "release": lambda store, post_id: store.release(_notification(post_id, "bob")),
    "delete a post": lambda store, post_id: store.delete_post(post_id),
    "delete a user": lambda store, _: store.delete_user("bob"),
    "forget mails": lambda store, _: store.forget_mails("bob", 0),
    "tell of an unlike": lambda store, post_id: store.complete_unlike(
        ValidateLike(post_id=post_id, username="bob", unliked_at=NOW)
    ),
}


def test_a_single_redis_that_has_handed_its_likes_over_takes_no_change(
    store: LikesStore, copy: KeyCopy, post_id: UUID
) -> None:
    store.like(post_id, "bob", NOW, LATER)
    store.claim(_notification(post_id, "bob"), "worker")
    _move(copy)

    for change in CHANGES.values():
        with pytest.raises(CannotServe, match="handed its likes to a cluster"):
            change(store, post_id)
    assert store.count(post_id).count == 1


def test_a_finished_move_is_not_made_again(
    store: LikesStore, copy: KeyCopy, after: LikesStore, post_id: UUID
) -> None:
    store.like(post_id, "bob", NOW, LATER)
    _move(copy)
    after.unlike(post_id, "bob", LATER)

    _move(copy)

    assert after.count(post_id).count == 0


def test_a_cluster_with_likes_in_it_is_not_copied_to(
    copy: KeyCopy, after: LikesStore, post_id: UUID, raw_redis: redis.Redis
) -> None:
    after.like(post_id, "bob", NOW, LATER)

    with pytest.raises(CopyRefused, match="likes in the cluster"):
        next(copy.run())
    assert raw_redis.keys() == []


def test_a_copy_goes_on_in_no_other_cluster(cluster: RedisCluster, copy: KeyCopy) -> None:
    next(copy.run(), None)
    cluster.flush()

    for call in (copy.finish, lambda: next(copy.run())):
        with pytest.raises(CopyRefused, match="not the cluster of the copy"):
            call()


def test_nothing_is_handed_over_before_all_is_copied(store: LikesStore, copy: KeyCopy) -> None:
    store.like(new_id(), "bob", NOW, LATER)
    next(copy.run())

    with pytest.raises(CopyRefused, match="not all"):
        copy.finish()
