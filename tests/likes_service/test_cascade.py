"""What deletions in other services take with them, on a real Redis and Beanstalkd."""

from collections.abc import Callable
from uuid import UUID

import pytest
import redis

from common.errors import Unauthorized
from common.fields import new_id
from common.jobs.queue import JobQueue
from likes_service import store as module
from likes_service.cascade import Cascade
from likes_service.models import EVENT, AccountDeleted, Event, Liked, LikeUndone, PostDeleted
from likes_service.store import LikesStore
from tests.likes_service.conftest import LATER, NOW
from tests.tubes import take_all

PLACES = ["redis_url", "cluster_url"]
Apply = Callable[[Event], None]


@pytest.fixture
def users_tube(queues: Callable[[], JobQueue]) -> JobQueue:
    return queues()


@pytest.fixture
def apply(store: LikesStore, queues: Callable[[], JobQueue], users_tube: JobQueue) -> Apply:
    """Apply an event, and what comes of it."""
    own = queues()
    cascade = Cascade(store, own, users_tube)

    def apply(event: Event) -> None:
        cascade.apply(event)
        for payload in take_all(own):
            apply(EVENT.validate_python(payload))

    return apply


def _like(store: LikesStore, post_id: UUID, *usernames: str) -> None:
    for username in usernames:
        store.like(post_id, username, NOW, LATER)


def _deleted(post_id: UUID) -> PostDeleted:
    return PostDeleted(kind="post_deleted", post_id=post_id, at=NOW)


BOB_IS_GONE = AccountDeleted(kind="account_deleted", username="bob", at=NOW)


def _liked(post_id: UUID, username: str) -> Liked:
    return Liked(post_id=post_id, username=username, author="alice", text="Hi")


@pytest.fixture(params=[1, 2])
def times(request: pytest.FixtureRequest) -> int:
    """How often an event comes."""
    times: int = request.param
    return times


def test_a_deleted_post_leaves_counts_ranking_lists_and_the_outbox(
    store: LikesStore, apply: Apply, post_id: UUID, times: int
) -> None:
    other = new_id()
    _like(store, post_id, "bob", "carol")
    _like(store, other, "bob")

    for _ in range(times):
        apply(_deleted(post_id))

    assert (store.count(post_id).count, store.likers(post_id, 9)) == (0, [])
    assert [one.post_id for one in store.popular(9, None)] == [other]
    assert [one.post_id for one in store.liked_by("bob", 9)] == [other]
    assert store.liked_by("carol", 9) == []
    assert [one.post_id for one in store.claim_overdue(LATER, 9)] == [other]


def test_a_deleted_user_leaves_counts_ranking_lists_and_the_outbox(
    store: LikesStore, apply: Apply, post_id: UUID, times: int
) -> None:
    other = new_id()
    _like(store, post_id, "bob", "carol")
    _like(store, other, "bob")

    for _ in range(times):
        apply(BOB_IS_GONE)

    assert [(one.post_id, one.count) for one in store.popular(9, None)] == [(post_id, 1)]
    assert [one.username for one in store.likers(post_id, 9)] == ["carol"]
    assert store.liked_by("bob", 9) == []
    assert [one.username for one in store.claim_overdue(LATER, 9)] == ["carol"]


def test_users_are_told_that_nothing_is_left_each_time_the_event_comes(
    apply: Apply, users_tube: JobQueue, times: int
) -> None:
    for _ in range(times):
        apply(BOB_IS_GONE)

    assert (
        take_all(users_tube) == [{"kind": "account_cleared", "username": "bob", "service": "likes"}] * times
    )


def test_a_late_like_of_a_deleted_user_is_refused(store: LikesStore, apply: Apply, post_id: UUID) -> None:
    apply(BOB_IS_GONE)

    with pytest.raises(Unauthorized):
        _like(store, post_id, "bob")
    assert store.popular(9, None) == []


def test_a_late_like_of_a_deleted_post_waits_for_its_validation_and_is_undone(
    store: LikesStore, apply: Apply, post_id: UUID
) -> None:
    apply(_deleted(post_id))
    _like(store, post_id, "bob")

    pending = store.pending(post_id, "bob")
    assert pending
    assert store.undo(pending)
    assert store.popular(9, None) == []


def test_a_validation_that_ends_after_the_deletion_brings_nothing_back(
    store: LikesStore, apply: Apply, post_id: UUID
) -> None:
    _like(store, post_id, "bob")
    pending = store.pending(post_id, "bob")
    assert pending

    apply(_deleted(post_id))
    store.complete(pending)

    assert (store.count(post_id).count, store.liked_by("bob", 9)) == (0, [])


def test_nothing_is_mailed_about_a_deleted_post_not_even_of_a_late_like(
    store: LikesStore, apply: Apply, post_id: UUID
) -> None:
    _like(store, post_id, "bob", "carol")
    apply(_deleted(post_id))
    _like(store, post_id, "carol")

    claims = [store.claim(_liked(post_id, username), "worker") for username in ("bob", "carol")]
    assert claims == ["unliked", "unliked"]


def test_the_user_of_a_late_like_is_told_that_it_is_undone(
    store: LikesStore, apply: Apply, post_id: UUID
) -> None:
    apply(_deleted(post_id))

    assert store.claim(LikeUndone(post_id=post_id, username="bob"), "worker") == "granted"


def test_no_name_of_a_deleted_user_is_left_with_the_mails(
    store: LikesStore, apply: Apply, raw_redis: redis.Redis, post_id: UUID
) -> None:
    _like(store, post_id, "bob")
    store.claim(_liked(post_id, "bob"), "worker")

    apply(BOB_IS_GONE)

    assert list(raw_redis.scan_iter("likes:mailed:*")) == []


def test_no_name_of_a_deleted_user_is_left_with_the_mails_of_likes_that_were_taken_back(
    store: LikesStore,
    apply: Apply,
    raw_redis: redis.Redis,
    users_tube: JobQueue,
    post_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SCAN_STEP", 2)
    monkeypatch.setattr(module, "FORGET_SECONDS", 0)
    for liked in (post_id, *(new_id() for _ in range(20))):
        _like(store, liked, "bob", "carol")
        for name in ("bob", "carol"):
            store.claim(_liked(liked, name), "worker")
        store.unlike(liked, "bob", LATER)
        store.claim(LikeUndone(post_id=liked, username="bob"), "worker")

    apply(BOB_IS_GONE)

    mailed = [raw_redis.hkeys(key) for key in raw_redis.scan_iter("likes:mailed:*")]
    assert mailed == [["liked carol"]] * 21
    assert len(take_all(users_tube)) == 1


def test_no_mail_to_a_deleted_user_is_claimed_late(
    store: LikesStore, apply: Apply, raw_redis: redis.Redis, post_id: UUID
) -> None:
    apply(BOB_IS_GONE)

    assert store.claim(LikeUndone(post_id=post_id, username="bob"), "worker") == "unliked"
    assert list(raw_redis.scan_iter("likes:mailed:*")) == []


def test_a_deleted_post_is_still_a_cursor_of_the_lists_it_has_left(
    store: LikesStore, apply: Apply, post_id: UUID
) -> None:
    older = new_id()
    _like(store, older, "bob")
    _like(store, post_id, "bob")

    apply(_deleted(post_id))

    assert [one.post_id for one in store.liked_by("bob", 9, before=post_id)] == [older]


@pytest.mark.parametrize("likes", [0, 1, 3, 4, 7])
def test_any_number_of_likes_goes_in_steps(
    store: LikesStore, apply: Apply, post_id: UUID, monkeypatch: pytest.MonkeyPatch, likes: int
) -> None:
    monkeypatch.setattr(module, "DELETE_STEP", 2)
    _like(store, post_id, *(f"liker{number}" for number in range(likes)))
    for _ in range(likes):
        _like(store, new_id(), "bob")

    apply(_deleted(post_id))
    apply(BOB_IS_GONE)

    assert store.popular(9, None) == []


def test_no_step_takes_more_than_a_hundred_likes(
    store: LikesStore, apply: Apply, raw_redis: redis.Redis, post_id: UUID
) -> None:
    _like(store, post_id, *(f"liker{number}" for number in range(1000)))
    raw_redis.config_resetstat()

    apply(_deleted(post_id))

    assert raw_redis.info("commandstats")["cmdstat_evalsha"]["calls"] >= 1000 / 100
    assert store.count(post_id).count == 0
