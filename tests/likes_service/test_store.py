"""Likes in Redis."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
import redis
import server_processes

from common.errors import BadRequest, CredentialsRejected
from common.fields import new_id
from common.server.app import THREADS
from likes_service.models import Liked as LikedNotice
from likes_service.models import LikedPost, LikeUndone, OutboxEntry, PostLikes, ValidateLike
from likes_service.store import CONNECT_SECONDS, SOCKET_TIMEOUT_SECONDS, LikesStore, microseconds
from tests.hung_server import count_waits, hung_server
from tests.likes_service.conftest import LATER, NOW

PLACES = ["redis_url", "cluster_url"]
SECOND = timedelta(seconds=1)


def like(store: LikesStore, post_id: UUID, *usernames: str, at=NOW):
    for username in usernames:
        store.like(post_id, username, at, at + 30 * SECOND)


def notification(post_id: UUID, username: str = "bob") -> LikedNotice:
    return LikedNotice(post_id=post_id, username=username, author="alice", text="Hi")


def test_a_like_counts_at_once(store, post_id):
    liking = store.like(post_id, "bob", NOW, LATER)

    assert liking.model_dump() == {
        "post_id": post_id,
        "username": "bob",
        "liked": True,
        "changed": True,
        "count": 1,
    }


def test_liking_twice_counts_once(store, post_id):
    like(store, post_id, "bob")

    again = store.like(post_id, "bob", NOW + SECOND, LATER)

    assert (again.changed, again.count) == (False, 1)


def test_liking_again_does_not_change_since_when(store, post_id):
    like(store, post_id, "bob")

    like(store, post_id, "bob", at=NOW + SECOND)

    assert store.liked_by("bob", 10, None) == [LikedPost(post_id=post_id, liked_at=NOW)]


def test_the_moment_of_a_like_comes_back_to_the_microsecond(store):
    moments = sorted(NOW + timedelta(microseconds=random.randrange(10**15)) for _ in range(100))
    for at in moments:
        like(store, new_id(), "bob", at=at)

    liked = store.liked_by("bob", 100, None)

    assert [one.liked_at for one in liked] == sorted(moments, reverse=True)


def test_unliking_takes_the_like_out_of_all_views(store, post_id):
    like(store, post_id, "bob")

    liking, _ = store.unlike(post_id, "bob", LATER)

    assert (liking.liked, liking.changed, liking.count) == (False, True, 0)
    assert store.count(post_id).count == 0
    assert store.liked_by("bob", 10, None) == []
    assert store.popular(10, None) == []


def test_unliking_what_is_not_liked_changes_nothing(store, post_id):
    like(store, post_id, "alice")

    liking, _ = store.unlike(post_id, "bob", LATER)

    assert (liking.changed, liking.count) == (False, 1)


def test_the_last_unlike_leaves_nothing_but_a_cursor_that_expires(store, raw_redis, post_id):
    like(store, post_id, "bob")

    _, at = store.unlike(post_id, "bob", LATER)
    store.complete_unlike(ValidateLike(post_id=post_id, username="bob", unliked_at=at))

    (cursor,) = raw_redis.keys()
    assert raw_redis.ttl(cursor) > 0


@pytest.mark.parametrize("clock", [NOW - timedelta(days=1), NOW, NOW + timedelta(days=1)])
def test_each_like_and_unlike_of_a_pair_is_later_than_the_one_before(store, post_id, clock):
    times = []
    for at in (NOW, clock, clock):
        store.like(post_id, "bob", at, LATER)
        times.append(store.liked_by("bob", 1)[0].liked_at)
        times.append(store.unlike(post_id, "bob", LATER)[1])

    assert times == sorted(set(times))


def test_an_unlike_is_overdue_until_it_is_complete(store, post_id):
    like(store, post_id, "bob")
    _, at = store.unlike(post_id, "bob", LATER)
    unlike = ValidateLike(post_id=post_id, username="bob", unliked_at=at)

    assert store.claim_overdue(LATER - SECOND, 10) == []
    assert store.claim_overdue(LATER, 10) == [unlike]
    store.complete_unlike(unlike)
    assert store.claim_overdue(LATER + timedelta(days=1), 10) == []


def test_two_unlikes_of_one_post_wait_side_by_side(store, post_id):
    unlikes = []
    for _ in range(2):
        like(store, post_id, "bob")
        unlikes.append(store.unlike(post_id, "bob", LATER)[1])

    assert [one.unliked_at for one in store.claim_overdue(LATER, 10)] == unlikes


def test_an_unknown_post_has_no_likes(store, post_id):
    assert store.count(post_id) == PostLikes(post_id=post_id, count=0)


def test_a_users_likes_are_newest_first(store):
    posts = [new_id() for _ in range(5)]
    for number, post_id in enumerate(random.sample(posts, 5)):
        like(store, post_id, "bob", at=NOW + number * SECOND)
    moments = [liked.liked_at for liked in store.liked_by("bob", 10, None)]

    assert moments == sorted(moments, reverse=True)


@pytest.mark.parametrize("step", [0, -1], ids=["of one moment", "by a clock that goes backwards"])
def test_likes_are_listed_in_the_order_in_which_they_came(store, step):
    posts = random.sample([new_id() for _ in range(5)], 5)
    for number, post_id in enumerate(posts):
        like(store, post_id, "bob", at=NOW + number * step * SECOND)

    assert [liked.post_id for liked in store.liked_by("bob", 10)] == posts[::-1]


def test_likers_are_listed_in_the_order_in_which_they_came(store, post_id):
    like(store, new_id(), "carol", at=NOW + SECOND)
    like(store, post_id, "bob", at=NOW)
    like(store, post_id, "carol", at=NOW - SECOND)
    like(store, post_id, "alice", at=NOW)

    found = store.likers(post_id, 10)

    assert [liker.username for liker in found] == ["alice", "carol", "bob"]
    assert [liker.liked_at for liker in found] == sorted({liker.liked_at for liker in found}, reverse=True)


def test_a_page_after_a_cursor_is_the_nearest_newer_likes(store, post_id):
    like(store, post_id, "u1", "u2", "u3", "u4", "u5")

    assert [liker.username for liker in store.likers(post_id, 2, after="u2")] == ["u4", "u3"]
    assert [liker.username for liker in store.likers(post_id, 9, after="u2")] == ["u5", "u4", "u3"]
    assert store.likers(post_id, 2, after="u5") == []


def test_a_page_between_two_cursors_is_what_is_nearest_to_the_older_one(store, post_id):
    like(store, post_id, "u1", "u2", "u3", "u4", "u5")

    assert [liker.username for liker in store.likers(post_id, 9, "u5", "u2")] == ["u4", "u3"]
    assert [liker.username for liker in store.likers(post_id, 1, "u5", "u2")] == ["u3"]
    assert store.likers(post_id, 9, "u2", "u5") == []


@pytest.mark.parametrize("is_back", [False, True], ids=["gone", "there again"])
def test_a_page_goes_on_from_where_its_cursor_was(store, post_id, is_back):
    like(store, post_id, "u1", "u2", "u3", "u4")
    cursor = store.likers(post_id, 9)[2]
    seen = str(microseconds(cursor.liked_at))
    store.unlike(post_id, cursor.username, LATER)
    if is_back:
        like(store, post_id, cursor.username)

    older = store.likers(post_id, 9, before=cursor.username, seen=seen)
    newer = store.likers(post_id, 2, after=cursor.username, seen=seen)
    assert [[liker.username for liker in page] for page in (older, newer)] == [["u1"], ["u4", "u3"]]


def test_a_cursor_that_is_gone_stands_where_it_stood(store, post_id):
    like(store, post_id, "u1", "u2", "u3", "u4", "u5")
    store.unlike(post_id, "u3", LATER)

    assert [liker.username for liker in store.likers(post_id, 9, before="u3")] == ["u2", "u1"]
    assert [liker.username for liker in store.likers(post_id, 9, after="u3")] == ["u5", "u4"]


def test_a_post_that_is_not_liked_any_more_is_a_cursor_of_its_users_list(store):
    posts = [new_id() for _ in range(3)]
    for post in posts:
        like(store, post, "bob")
    store.unlike(posts[1], "bob", LATER)

    assert [liked.post_id for liked in store.liked_by("bob", 9, before=posts[1])] == [posts[0]]
    assert [liked.post_id for liked in store.liked_by("bob", 9, after=posts[1])] == [posts[2]]


def test_an_undone_like_is_a_cursor(store, post_id):
    like(store, post_id, "bob", "carol")
    store.undo(store.pending(post_id, "bob"))

    assert [liker.username for liker in store.likers(post_id, 9, after="bob")] == ["carol"]


@pytest.mark.parametrize("cursor", [{"before": "dave"}, {"after": "dave"}])
def test_a_cursor_that_never_liked_the_post_is_refused(store, post_id, cursor):
    like(store, post_id, "bob")

    with pytest.raises(BadRequest) as caught:
        store.likers(post_id, 9, **cursor)

    assert (caught.value.code, "dave" in caught.value.detail) == ("unknown_cursor", True)


def test_following_newer_likes_misses_none_while_many_like_at_once(redis_url, post_id):
    store = LikesStore.connect(redis_url, threads=8)
    like(store, post_id, "first")
    seen = ["first"]

    def follow() -> bool:
        found = store.likers(post_id, 10, after=seen[-1])
        seen.extend(liker.username for liker in reversed(found))
        return bool(found)

    with ThreadPoolExecutor(8) as pool:
        dice = random.Random(1)
        names = [f"user{number}" for number in range(200)]
        moments = [NOW + dice.randrange(-1000, 1000) * SECOND for _ in names]
        done = [pool.submit(store.like, post_id, *one, LATER) for one in zip(names, moments, strict=True)]
        while not all(one.done() for one in done):
            follow()
    while follow():
        pass
    store.close()

    assert sorted(seen[1:]) == sorted(names)


def test_the_likes_of_many_posts_are_one_round_trip(store, raw_redis):
    posts = [new_id() for _ in range(100)]
    like(store, posts[7], "bob", "carol")
    like(store, posts[8], "carol")
    store.counts(posts, "bob")
    raw_redis.config_resetstat()

    found = store.counts(posts, "bob")

    commands = {name for name in raw_redis.info("commandstats") if not name.startswith("cmdstat_config")}
    assert commands == {"cmdstat_evalsha", "cmdstat_zcard", "cmdstat_zscore"}
    assert raw_redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    assert [(likes.count, likes.liked) for likes in found[6:10]] == [
        (0, False),
        (2, True),
        (1, False),
        (0, False),
    ]


def test_pages_of_a_users_likes_have_no_gap_and_no_overlap(store):
    posts = [new_id() for _ in range(7)]
    for number, post_id in enumerate(posts):
        like(store, post_id, "bob", at=NOW + number // 3 * SECOND)
    whole = store.liked_by("bob", 100, None)
    paged: list[LikedPost] = []

    while found := store.liked_by("bob", 2, paged[-1].post_id if paged else None):
        paged += found

    assert paged == whole


def test_a_cursor_that_is_not_on_the_users_list_is_refused(store, post_id):
    with pytest.raises(BadRequest) as caught:
        store.liked_by("bob", 10, post_id)

    assert caught.value.code == "unknown_cursor"


def test_popular_posts_come_most_liked_first(store):
    first, second = new_id(), new_id()
    like(store, first, "bob", "carol", "dave")
    like(store, second, "bob", "carol")

    assert store.popular(10, None) == [
        PostLikes(post_id=first, count=3),
        PostLikes(post_id=second, count=2),
    ]


def test_equally_popular_posts_come_newest_first(store):
    posts = [new_id() for _ in range(5)]
    for post_id in random.sample(posts, 5):
        like(store, post_id, "bob")

    assert [post.post_id for post in store.popular(10, None)] == posts[::-1]


def test_pages_of_the_ranking_go_on_by_rank(store):
    posts = [new_id() for _ in range(5)]
    for post_id in posts:
        like(store, post_id, "bob")
    first = store.popular(2, None)

    second = store.popular(10, first[-1].post_id)

    assert [post.post_id for post in first + second] == posts[::-1]


def test_the_ranking_goes_on_among_equals_from_a_post_that_is_gone(store):
    posts = [new_id() for _ in range(5)]
    for post_id in posts:
        like(store, post_id, "bob")
    store.delete_post(posts[2])

    assert [post.post_id for post in store.popular(10, posts[2], "1")] == posts[1::-1]


def test_a_cursor_that_is_not_in_the_ranking_is_refused(store, post_id):
    with pytest.raises(BadRequest) as caught:
        store.popular(10, post_id)

    assert caught.value.code == "unknown_cursor"


def test_under_any_concurrency_the_views_agree_at_every_instant(redis_url, raw_redis, post_id):
    store = LikesStore.connect(redis_url, threads=50)
    names = [f"user{number}" for number in range(10)]
    done = threading.Event()
    disagreements = []

    def change(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(40):
            change = dice.choice([store.like, store.unlike])
            change(post_id, dice.choice(names), *([NOW, LATER] if change == store.like else [LATER]))

    def watch() -> None:
        while not done.is_set():
            with raw_redis.pipeline(transaction=True) as look:
                look.zcard(f"likes:post:{post_id}").zscore("likes:popular", str(post_id))
                for name in names:
                    look.zscore(f"likes:user:{name}", str(post_id))
                count, rank, *lists = look.execute()
            listed = sum(score is not None for score in lists)
            if not count == (rank or 0) == listed:
                disagreements.append((count, rank, listed))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(50) as threads:
        list(threads.map(change, range(50)))
    done.set()
    watcher.join()
    store.close()

    assert disagreements == []


def test_of_fifty_likes_at_once_by_one_user_one_changes_something(redis_url, post_id):
    store = LikesStore.connect(redis_url, threads=50)
    with ThreadPoolExecutor(50) as threads:
        likings = list(threads.map(lambda _: store.like(post_id, "bob", NOW, LATER), range(50)))
    store.close()

    assert sum(liking.changed for liking in likings) == 1


def test_a_like_owes_its_validation(store, post_id):
    like(store, post_id, "bob")

    assert store.pending(post_id, "bob") == OutboxEntry(post_id, "bob", NOW)


def test_what_is_settled_is_owed_no_more(store, post_id):
    like(store, post_id, "bob")

    store.complete(store.pending(post_id, "bob"))

    assert store.pending(post_id, "bob") is None


def test_unliking_settles_what_was_owed(store, post_id):
    like(store, post_id, "bob")

    store.unlike(post_id, "bob", LATER)

    assert store.pending(post_id, "bob") is None


def test_a_like_made_anew_meanwhile_is_not_settled_with_the_old_one(store, post_id):
    like(store, post_id, "bob")
    old = store.pending(post_id, "bob")
    store.unlike(post_id, "bob", LATER)
    like(store, post_id, "bob", at=NOW + SECOND)

    store.complete(old)

    assert store.pending(post_id, "bob") == OutboxEntry(post_id, "bob", NOW + SECOND)


def test_a_like_taken_back_is_out_of_all_views(store, post_id):
    like(store, post_id, "bob", "carol")

    store.undo(store.pending(post_id, "bob"))

    assert store.count(post_id).count == 1
    assert store.liked_by("bob", 10, None) == []
    assert store.popular(10, None) == [PostLikes(post_id=post_id, count=1)]


def test_a_like_taken_back_owes_its_liker_word(store, post_id):
    like(store, post_id, "bob")

    taken = store.undo(store.pending(post_id, "bob"))

    assert taken == store.pending(post_id, "bob") == OutboxEntry(post_id, "bob", None)


def test_a_like_is_taken_back_once(store, post_id):
    like(store, post_id, "bob")
    pending = store.pending(post_id, "bob")
    store.undo(pending)

    assert store.undo(pending) is None


def test_a_like_made_anew_meanwhile_is_not_taken_back(store, post_id):
    like(store, post_id, "bob")
    old = store.pending(post_id, "bob")
    store.unlike(post_id, "bob", LATER)
    like(store, post_id, "bob", at=NOW + SECOND)

    assert store.undo(old) is None
    assert store.count(post_id).count == 1


def test_a_like_made_anew_after_it_was_taken_back_is_owed_its_validation(store, post_id):
    like(store, post_id, "bob")
    taken = store.undo(store.pending(post_id, "bob"))
    like(store, post_id, "bob", at=NOW + SECOND)

    store.complete(taken)

    assert store.pending(post_id, "bob") == OutboxEntry(post_id, "bob", NOW + SECOND)


def test_only_what_is_due_is_overdue(store):
    soon, later = new_id(), new_id()
    store.like(soon, "bob", NOW, NOW + SECOND)
    store.like(later, "bob", NOW, NOW + 3 * SECOND)

    overdue = store.claim_overdue(NOW + 2 * SECOND, 10)

    assert overdue == [ValidateLike(post_id=soon, username="bob")]


def test_what_is_overdue_comes_in_bites(store, post_id):
    like(store, post_id, *(f"user{number}" for number in range(5)))

    bites = [len(store.claim_overdue(LATER, 2)) for _ in range(4)]

    assert bites == [2, 2, 1, 0]


def test_what_stays_overdue_is_taken_ever_more_rarely(store, post_id):
    like(store, post_id, "bob")

    taken = [second for second in range(0, 3600, 10) if store.claim_overdue(NOW + second * SECOND, 10)]

    assert taken == [30, 60, 120, 240, 480, 960, 1920]


def test_what_stays_overdue_for_days_is_taken_every_hour(store, post_id):
    like(store, post_id, "bob")
    day = NOW + timedelta(days=1)
    store.claim_overdue(day, 10)

    assert store.claim_overdue(day + timedelta(minutes=59), 10) == []
    assert len(store.claim_overdue(day + timedelta(minutes=60), 10)) == 1


def test_word_owed_to_a_liker_is_taken_again_after_half_a_minute(store, post_id):
    like(store, post_id, "bob")
    store.undo(store.pending(post_id, "bob"))

    taken = [second for second in range(0, 100, 10) if store.claim_overdue(NOW + second * SECOND, 10)]

    assert taken == [30, 60, 90]


def test_a_notice_is_claimed_once(store, post_id):
    like(store, post_id, "bob")

    assert [store.claim(notification(post_id), worker) for worker in "abc"] == ["granted", "mailed", "mailed"]


def test_a_claim_may_be_asked_for_again(store, post_id):
    like(store, post_id, "bob")

    assert [store.claim(notification(post_id), "a") for _ in range(2)] == ["granted", "granted"]


def test_of_many_who_claim_a_notice_at_once_one_gets_it(redis_url, post_id):
    store = LikesStore.connect(redis_url, threads=50)
    like(store, post_id, "bob")
    with ThreadPoolExecutor(50) as threads:
        claims = list(threads.map(lambda number: store.claim(notification(post_id), str(number)), range(50)))
    store.close()

    assert claims.count("granted") == 1


def test_a_notice_of_a_like_that_is_gone_is_not_claimed(store, post_id):
    assert store.claim(notification(post_id), "a") == "unliked"


def test_a_claim_outlives_the_like(store, post_id):
    like(store, post_id, "bob")
    store.claim(notification(post_id), "a")
    store.unlike(post_id, "bob", LATER)
    like(store, post_id, "bob")

    assert store.claim(notification(post_id), "b") == "mailed"


def test_a_released_notice_is_claimed_again(store, post_id):
    like(store, post_id, "bob")
    store.claim(notification(post_id), "a")

    store.release(notification(post_id))

    assert store.claim(notification(post_id), "b") == "granted"


def test_word_of_a_like_taken_back_is_claimed_although_the_like_is_gone(store, post_id):
    word = LikeUndone(post_id=post_id, username="bob")

    assert [store.claim(word, worker) for worker in "ab"] == ["granted", "mailed"]


@pytest.fixture
def configure(raw_redis: redis.Redis) -> Iterator[Callable[[str, str], None]]:
    """Changes how Redis is configured, for this test."""
    before: dict[str, str] = {}

    def change(name: str, value: str) -> None:
        before.update({**raw_redis.config_get(name), **before})
        raw_redis.config_set(name, value)

    yield change
    for name, value in before.items():
        raw_redis.config_set(name, value)


def test_a_full_redis_is_an_outage(store, configure, post_id):
    configure("maxmemory", "1")

    with pytest.raises(store.outages):
        like(store, post_id, "bob")


def test_a_replica_is_an_outage(store, raw_redis, post_id):
    raw_redis.replicaof("127.0.0.1", str(server_processes.free_port()))
    try:
        with pytest.raises(store.outages):
            like(store, post_id, "bob")
    finally:
        raw_redis.replicaof("NO", "ONE")


def test_a_script_changes_everything_or_nothing_when_redis_is_full(store, raw_redis, configure, post_id):
    configure("maxmemory", "1")
    with pytest.raises(store.outages):
        like(store, post_id, "bob")
    configure("maxmemory", "0")

    assert raw_redis.keys() == []


def test_a_redis_that_is_away_is_an_outage():
    store = LikesStore.connect(f"redis://127.0.0.1:{server_processes.free_port()}/0")

    with pytest.raises(store.outages):
        store.ping()


@pytest.mark.parametrize("account", ["", ":wrong@", "nobody:wrong@"])
def test_wrong_credentials_are_told_apart_from_an_outage(redis_url, configure, post_id, account):
    configure("requirepass", "right")
    place = redis_url.removeprefix("redis://").removesuffix("/0")
    user = account.partition(":")[0] or "default"
    store = LikesStore.connect(f"redis://{account}{place}/0")

    for call in (store.ping, lambda: like(store, post_id, "bob")):
        with pytest.raises(
            CredentialsRejected, match=f"Redis at {place} rejects user {user}: correct REDIS_URL"
        ):
            call()


def test_while_redis_hangs_each_thread_waits_once_and_less_than_two_seconds(post_id):
    with hung_server() as port:
        store = LikesStore.connect(f"redis://127.0.0.1:{port}/0", THREADS)

        assert count_waits(lambda: like(store, post_id, "bob"), store.outages) <= THREADS
    assert CONNECT_SECONDS + SOCKET_TIMEOUT_SECONDS < 2


def test_scripts_come_back_by_themselves(store, raw_redis, post_id):
    like(store, post_id, "bob")
    raw_redis.script_flush()

    like(store, post_id, "carol")

    assert store.count(post_id).count == 2


def test_connections_that_redis_has_closed_are_replaced_unnoticed(store, raw_redis, post_id):
    like(store, post_id, "bob")
    raw_redis.client_kill_filter(_type="normal", skipme=True)

    like(store, post_id, "carol")

    assert store.count(post_id).count == 2
