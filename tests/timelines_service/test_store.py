"""Posts on a real PostgreSQL."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Uuid, bindparam, event, text

from common.errors import NotFound, Unprocessable
from common.fields import new_id
from timelines_service import home_timelines, idempotency
from timelines_service import store as module
from timelines_service.idempotency import KEY_TTL
from timelines_service.models import Post
from timelines_service.store import TimelinesStore


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

    assert [post.id for post in store.newest(2, None)] == ids[:2]
    assert [post.id for post in store.newest(9, ids[1])] == ids[2:]


def test_a_users_posts_are_theirs_alone(store: TimelinesStore) -> None:
    mine = store.add(_post("alice"))
    store.add(_post("bobby"))

    assert store.newest_by_user("alice", 9, None) == [mine]


def test_the_same_key_stores_one_post_however_many_come_at_once(store: TimelinesStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda _: store.add(_post(), "key"), range(16)))

    assert len({post.id for post in stored}) == 1
    assert store.newest(9, None) == stored[:1]


def test_the_same_key_with_another_text_is_refused_and_stores_nothing(store: TimelinesStore) -> None:
    first = store.add(_post(), "key")

    with pytest.raises(Unprocessable):
        store.add(_post(words="Other"), "key")
    assert store.newest(9, None) == [first]


def test_another_users_key_is_another_key(store: TimelinesStore) -> None:
    store.add(_post("alice"), "key")
    store.add(_post("bobby"), "key")

    assert len(store.newest(9, None)) == 2


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

    assert store.newest(9, None) == posts[::-1]


@pytest.mark.parametrize("followees", [0, 1, 5, 60, 200])
@pytest.mark.parametrize("window", [10, 2000])
def test_a_home_timeline_is_what_a_plain_query_finds(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch, followees: int, window: int
) -> None:
    monkeypatch.setattr(module, "FROM_RECENT", _windowed(window))
    seeded = random.Random(followees)
    authors = [f"author{number}" for number in range(300)]
    store.add_missing([_post(seeded.choice(authors)) for _ in range(1000)])
    chosen = seeded.sample(authors, followees)
    everything = [post for post in store.newest(1000, None) if post.username in chosen]

    assert store.newest_by_users(chosen, 21, None) == everything[:21]
    middle = everything[len(everything) // 2].id if everything else None
    expected = [post for post in everything if middle and post.id < middle][:21]
    assert store.newest_by_users(chosen, 21, middle)[: len(expected)] == (expected if middle else [])


def _windowed(size: int):  # the same query over another number of posts
    statement = str(home_timelines.FROM_RECENT.text).replace(str(home_timelines.WINDOW), str(size))
    return text(statement).bindparams(bindparam("before", type_=Uuid))


def test_a_batch_is_one_statement(store: TimelinesStore) -> None:
    statements: list[str] = []
    engine = store._database._engine
    event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    store.add_missing([_post() for _ in range(100)])

    assert len(statements) == 1


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

    assert len(store.newest(9, None)) == 2
