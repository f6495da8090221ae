"""Users and follows on a real PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import server_processes
from sqlalchemy import text

from common.errors import BadRequest, Conflict, NotFound, Unauthorized
from users_service.models import MAX_FOLLOWEES, NewUser
from users_service.relations import Page
from users_service.settings import UsersSettings
from users_service.store import UsersStore

Users = Callable[..., None]


def _register(store: UsersStore, username: str, email: str | None = None) -> str:
    user = NewUser(username=username, password="correct horse", email=email)
    try:
        store.register(user, "hash")
    except Conflict as conflict:
        return conflict.code
    return "registered"


def followees(store: UsersStore, before: str | None = None) -> list[str]:
    return [one.name for one in store.followees("alice", Page(10, before))]


def test_of_many_who_want_a_name_at_once_one_gets_it(store: UsersStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: _register(store, "alice"), range(16)))

    assert sorted(outcomes) == ["registered"] + ["username_taken"] * 15


def test_an_address_belongs_to_one_user_however_it_is_written(store: UsersStore) -> None:
    assert _register(store, "alice", "a@example.com") == "registered"
    assert _register(store, "bobby", "A@Example.com") == "email_taken"


def test_many_users_may_have_no_address(store: UsersStore) -> None:
    assert [_register(store, name) for name in ("alice", "bobby")] == ["registered"] * 2


def test_following_twice_changes_nothing(store: UsersStore, users: Users) -> None:
    users("alice", "bobby")

    assert [store.follow("alice", "bobby") for _ in range(2)] == [True, False]
    assert followees(store) == ["bobby"]


def test_followees_are_newest_first(store: UsersStore, users: Users) -> None:
    users("alice", "bobby", "carol", "david")
    for name in ("carol", "david", "bobby"):
        store.follow("alice", name)

    assert followees(store) == ["bobby", "david", "carol"]
    assert followees(store, "bobby") == ["david", "carol"]


def test_a_cursor_that_is_no_followee_is_refused(store: UsersStore, users: Users) -> None:
    users("alice", "bobby")

    with pytest.raises(BadRequest):
        store.followees("alice", Page(10, "bobby"))


def test_following_oneself_is_refused(store: UsersStore, users: Users) -> None:
    users("alice")

    with pytest.raises(BadRequest):
        store.follow("alice", "alice")


def test_following_nobody_is_not_found(store: UsersStore, users: Users) -> None:
    users("alice")

    with pytest.raises(NotFound):
        store.follow("alice", "nobody")


def test_a_token_of_a_user_that_is_gone_follows_nobody(store: UsersStore, users: Users) -> None:
    users("bobby")

    with pytest.raises(Unauthorized):
        store.follow("ghost", "bobby")


def test_the_limit_of_followees_is_exact_when_many_come_at_once(store: UsersStore, users: Users) -> None:
    names = [f"user{number}" for number in range(10)]
    users("alice", *names)
    with store._database.transaction() as connection:
        connection.execute(text("UPDATE users SET followees = :n"), {"n": MAX_FOLLOWEES - 4})

    def follow(name: str) -> bool:
        try:
            return store.follow("alice", name)
        except Conflict:
            return False

    with ThreadPoolExecutor(8) as pool:
        followed = list(pool.map(follow, names))

    assert followed.count(True) == 4
    assert len(store.followees("alice", Page(100))) == 4


def test_who_ends_one_may_follow_another(store: UsersStore, users: Users) -> None:
    users("alice", "bobby", "carol")
    store.follow("alice", "bobby")
    with store._database.transaction() as connection:
        connection.execute(text("UPDATE users SET followees = :n"), {"n": MAX_FOLLOWEES})
    with pytest.raises(Conflict):
        store.follow("alice", "carol")

    store.unfollow("alice", "bobby")

    assert store.follow("alice", "carol")
    assert followees(store) == ["carol"]


def test_who_is_at_the_limit_may_follow_again_whom_they_follow(store: UsersStore, users: Users) -> None:
    users("alice", "bobby")
    store.follow("alice", "bobby")
    with store._database.transaction() as connection:
        connection.execute(text("UPDATE users SET followees = :n"), {"n": MAX_FOLLOWEES})

    assert store.follow("alice", "bobby") is False


def test_the_count_stays_exact_when_following_and_ending_race(store: UsersStore, users: Users) -> None:
    users("alice", "bobby", "carol", "david")
    turns = [
        (verb, follower, followee)
        for _ in range(10)
        for follower, followee in (
            ("alice", "bobby"),
            ("bobby", "alice"),
            ("alice", "carol"),
            ("david", "bobby"),
        )
        for verb in (store.follow, store.unfollow)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda turn: turn[0](*turn[1:]), turns))

    with store._database.autocommit() as connection:
        wrong = connection.execute(
            text(
                "SELECT username FROM users"
                " WHERE followees <> (SELECT count(*) FROM follows WHERE follower = username)"
            )
        )
        assert wrong.all() == []


def test_a_hash_is_replaced_only_if_it_is_still_the_old_one(store: UsersStore, users: Users) -> None:
    users("alice")
    store.rehash("alice", "another hash", "late")
    assert store.credentials("alice")[0] == "no hash"

    store.rehash("alice", "no hash", "better")

    assert store.credentials("alice")[0] == "better"


def test_nobody_has_no_hash(store: UsersStore) -> None:
    assert store.credentials("nobody")[0] is None


def test_ending_to_follow_nobody_is_not_found(store: UsersStore, users: Users) -> None:
    users("alice")

    with pytest.raises(NotFound):
        store.unfollow("alice", "nobody")


def test_a_name_that_was_taken_again_has_another_version(store: UsersStore, users: Users) -> None:
    users("alice")
    before = store.followees_version("alice")
    with store._database.transaction() as connection:
        connection.execute(text("DELETE FROM users"))
    users("alice")

    assert store.followees_version("alice") != before


def test_the_version_changes_with_the_list_and_only_then(store: UsersStore, users: Users) -> None:
    users("alice", "bobby")
    versions = [store.followees_version("alice")]
    for verb in (store.follow, store.follow, store.unfollow, store.unfollow):
        verb("alice", "bobby")
        versions.append(store.followees_version("alice"))

    changed = [before != after for before, after in pairwise(versions)]
    assert changed == [True, False, True, False]


def test_two_processes_prepare_one_missing_database_at_once(postgres: int) -> None:
    settings = UsersSettings(_env_file=None, db_port=postgres, users_db_name="test_users_at_once")
    stores = [UsersStore.connect(settings.database) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(UsersStore.prepare, stores))

    assert [_register(store, f"user{number}") for number, store in enumerate(stores)] == ["registered"] * 4
    for store in stores:
        store.close()


def test_a_server_that_is_away_is_an_outage() -> None:
    settings = UsersSettings(_env_file=None, db_port=server_processes.free_port())

    with pytest.raises(UsersStore.outages):
        UsersStore.connect(settings.database).ping()
