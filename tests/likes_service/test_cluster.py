"""Likes in a Redis Cluster: what one script cannot do there, and masters and slots that come and go."""

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from threading import Event
from uuid import UUID

import pytest
from redis.crc import key_slot

from common.errors import CannotServe, CredentialsRejected
from common.fields import new_id
from likes_service.keys import BUCKETS, Keys
from likes_service.models import LikeState, ValidateLike
from likes_service.store import LikesStore
from tests.likes_service.conftest import LATER, NOW
from tests.own_server import OwnServer
from tests.polling import eventually, succeeds
from tests.redis_cluster import RedisCluster
from tests.replication import is_replicated

KEYS = Keys(is_split=True)
THREADS = 8


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[LikesStore]:
    store = LikesStore.connect(cluster.url, THREADS)
    yield store
    store.close()


@pytest.fixture
def user(cluster: RedisCluster, post_id: UUID) -> str:
    """A user whose list is at another master than the post."""
    here = cluster.master_of(KEYS.likers(post_id))
    names = (f"user{number}" for number in count())
    return next(name for name in names if cluster.master_of(KEYS.liked(name)) is not here)


@pytest.fixture
def without(cluster: RedisCluster, user: str) -> Callable[[str], object]:
    """While `with without(command)`, the master of the user's list refuses that command."""

    @contextmanager
    def without(command: str) -> Iterator[None]:
        master = cluster.find(KEYS.liked(user))
        master.execute_command(f"ACL SETUSER default -{command}")
        yield
        master.execute_command(f"ACL SETUSER default +{command}")

    return without


def _like(store: LikesStore, post_id: UUID, user: str) -> LikeState:
    return store.like(post_id, user, NOW, LATER)


def _liked(store: LikesStore, user: str) -> list[UUID]:
    return [one.post_id for one in store.liked_by(user, 100)]


def test_the_buckets_are_spread_over_all_masters(cluster: RedisCluster) -> None:
    masters = [cluster.master_of(KEYS.popular(bucket)) for bucket in range(BUCKETS)]

    assert all(masters.count(one) > BUCKETS / 6 for one in cluster.masters())


def test_the_ranking_of_all_buckets_goes_on_behind_any_post(store: LikesStore) -> None:
    posts = [new_id() for _ in range(9)]
    for number, post_id in enumerate(posts):
        for liker in range(number % 3 + 1):
            _like(store, post_id, f"user{liker}")
    expected = sorted(posts, key=lambda post: (posts.index(post) % 3, post), reverse=True)

    assert [one.post_id for one in store.popular(100, None)] == expected
    for place, post_id in enumerate(expected):
        page = store.popular(3, post_id)
        assert [one.post_id for one in page] == expected[place + 1 : place + 4]


def test_a_like_and_its_users_list_have_the_same_time(store: LikesStore, post_id: UUID) -> None:
    _like(store, new_id(), "bob")
    _like(store, post_id, "bob")

    assert store.liked_by("bob", 1)[0].liked_at == store.likers(post_id, 1)[0].liked_at


def test_a_like_counts_while_its_users_list_is_out_of_reach_and_is_on_it_when_it_is_validated(
    store: LikesStore, post_id: UUID, user: str, without
) -> None:
    with without("zadd"):
        assert _like(store, post_id, user).changed
    assert (store.count(post_id).count, _liked(store, user)) == (1, [])

    assert store.pending(post_id, user)
    assert _liked(store, user) == [post_id]


def test_an_unlike_holds_while_its_users_list_is_out_of_reach_and_is_off_it_when_it_is_told(
    store: LikesStore, post_id: UUID, user: str, without
) -> None:
    _like(store, post_id, user)
    with without("zrem"):
        state, at = store.unlike(post_id, user, LATER)
    assert (state.changed, _liked(store, user)) == (True, [post_id])

    store.complete_unlike(ValidateLike(post_id=post_id, username=user, unliked_at=at))
    assert _liked(store, user) == []


def test_an_undone_like_leaves_its_users_list_when_the_job_comes_again(
    store: LikesStore, post_id: UUID, user: str, without
) -> None:
    _like(store, post_id, user)
    pending = store.pending(post_id, user)
    assert pending
    with without("zrem"), pytest.raises(LikesStore.outages):
        store.undo(pending)

    again = store.pending(post_id, user)
    assert (again and again.liked_at, _liked(store, user)) == (None, [])


def test_a_like_that_a_deleted_user_has_just_begun_goes_when_it_is_validated(
    store: LikesStore, post_id: UUID, user: str, without
) -> None:
    with without("zadd"):
        _like(store, post_id, user)
    store.delete_user(user)

    assert store.pending(post_id, user) is None
    assert (store.count(post_id).count, store.popular(9, None), _liked(store, user)) == (0, [], [])


@pytest.mark.parametrize("undo", [LikesStore.unlike, lambda store, post_id, *_: store.delete_post(post_id)])
def test_what_is_written_late_to_a_users_list_brings_no_undone_like_back(
    store: LikesStore, post_id: UUID, undo: Callable[[LikesStore, UUID, str, object], object]
) -> None:
    _like(store, post_id, "bob")
    at = store.likers(post_id, 1)[0].liked_at
    undo(store, post_id, "bob", LATER)

    assert store._is_listed(post_id, "bob", int(at.timestamp() * 1_000_000))
    assert _liked(store, "bob") == []


def test_what_is_taken_late_from_a_users_list_leaves_a_later_like(store: LikesStore, post_id: UUID) -> None:
    _like(store, post_id, "bob")
    _, at = store.unlike(post_id, "bob", LATER)
    _like(store, post_id, "bob")

    store.complete_unlike(ValidateLike(post_id=post_id, username="bob", unliked_at=at))
    assert _liked(store, "bob") == [post_id]


def test_after_any_concurrency_all_views_agree(store: LikesStore) -> None:
    posts, users = [new_id() for _ in range(4)], [f"user{number}" for number in range(4)]

    def change(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(25):
            post_id, user = dice.choice(posts), dice.choice(users)
            dice.choice([_like, lambda *like: store.unlike(*like[1:], LATER)])(store, post_id, user)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(change, range(THREADS)))

    likes = {(post, one.username) for post in posts for one in store.likers(post, 9)}
    assert likes == {(post, user) for user in users for post in _liked(store, user)}
    ranked = {one.post_id: one.count for one in store.popular(9, None)}
    assert ranked == {post: count for post in posts if (count := store.count(post).count)}


def test_a_bucket_that_moves_is_an_outage_for_its_likes_alone_and_loses_none(
    cluster: RedisCluster, store: LikesStore, post_id: UUID
) -> None:
    key = KEYS.likers(post_id)
    _like(store, post_id, "bob")
    source = cluster.master_of(key)
    target = next(server for server in cluster.masters() if server is not source)
    other = next(one for one in iter(new_id, None) if KEYS.bucket(one) != KEYS.bucket(post_id))

    cluster.begin_move(key_slot(key.encode()), source, target)
    with pytest.raises(CannotServe, match="moves that slot"):
        _like(store, post_id, "carol")
    _like(store, other, "carol")
    cluster.raw(source).migrate("127.0.0.1", target.port, [key], 0, 5000)
    assert (store.count(post_id).count, len(store.likers(post_id, 9))) == (1, 1)
    cluster.end_move(key_slot(key.encode()), source, target)

    assert _like(store, post_id, "carol").count == 2
    assert cluster.raw(target).zcard(key) == 2


def test_a_cluster_of_which_a_part_was_known_is_asked_for_the_rest(store: LikesStore, post_id: UUID) -> None:
    store.count(post_id)
    # As it is when the first node that was asked had not met the others.
    del store._redis._slots[key_slot(KEYS.likers(post_id).encode())]

    with pytest.raises(CannotServe, match="no master serves that slot"):
        _like(store, post_id, "bob")
    assert eventually(lambda: succeeds(lambda: _like(store, post_id, "bob"), LikesStore.outages))


@pytest.mark.kills
@pytest.mark.parametrize("strike", [OwnServer.kill, OwnServer.hang])
def test_a_master_that_is_lost_is_an_outage_until_its_replica_has_taken_over(
    cluster: RedisCluster, store: LikesStore, post_id: UUID, strike: Callable[[OwnServer], None]
) -> None:
    _like(store, post_id, "bob")
    master = cluster.master_of(KEYS.likers(post_id))
    eventually(lambda: is_replicated(cluster.raw(master)))
    is_over = Event()

    def load() -> None:
        while not is_over.is_set():
            succeeds(partial(_like, store, new_id(), "dave"), LikesStore.outages)

    with ThreadPoolExecutor(2) as threads, ExitStack() as stack:
        stack.callback(is_over.set)
        loads = [threads.submit(load) for _ in range(2)]
        strike(master)
        with pytest.raises(LikesStore.outages):
            _like(store, post_id, "carol")
        cluster.fail_over_soon(master)
        eventually(lambda: succeeds(lambda: _like(store, post_id, "carol"), LikesStore.outages))
    master.resume()

    assert [one.result() for one in loads] == [None, None]
    assert {one.username for one in store.likers(post_id, 9)} == {"bob", "carol"}


def test_credentials_that_a_cluster_rejects_are_told_apart_from_an_outage(
    cluster: RedisCluster, post_id: UUID
) -> None:
    store = LikesStore.connect(cluster.url.replace("//", "//nobody:wrong@"))

    with pytest.raises(CredentialsRejected, match="rejects user nobody: correct REDIS_URL"):
        _like(store, post_id, "bob")


def test_a_cluster_of_which_no_node_responds_is_an_outage(post_id: UUID) -> None:
    store = LikesStore.connect("redis+cluster://127.0.0.1:9,127.0.0.2:9")

    with pytest.raises(CannotServe, match="no node responds"):
        _like(store, post_id, "bob")
