"""An upgrade of a database in use: what is there is kept, while instances of the last version go on."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Event
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import MetaData, text

from common.postgres.database import Database
from tests.upgrades import new_database, prepare_last_version
from tests.users_service.conftest import WRONG_COUNTS
from users_service.models import NewUser
from users_service.store import MIGRATIONS, UsersStore
from users_service.tables import metadata

USERS = [f"user_{number:03}" for number in range(500)]

# What an instance of the last version runs.
REGISTER = text(
    "INSERT INTO users (username, password_hash, email, bio, created_at)"
    " VALUES (:name, 'hash', NULL, '', to_timestamp(:at))"
)
FOLLOW = text("INSERT INTO follows (follower, followee) VALUES (:by, :of) ON CONFLICT DO NOTHING RETURNING 1")
UNFOLLOW = text("DELETE FROM follows WHERE follower = :by AND followee = :of RETURNING 1")
COUNT = text("UPDATE users SET followees = followees + :change WHERE username = :by")


@pytest.fixture
def database(postgres: int) -> Iterator[Database]:
    with new_database(postgres) as database:
        yield database


@pytest.fixture
def last_version(database: Database, tmp_path: Path) -> None:
    """The schema as the last version makes it, with users who follow each other."""
    prepare_last_version(database, MIGRATIONS, tmp_path)
    with database.transaction() as connection:
        for number, name in enumerate(USERS):
            connection.execute(REGISTER, {"name": name, "at": 1_700_000_000 + number})
    for number in range(100):
        change_follow(database, Random(number))


def change_follow(database: Database, dice: Random) -> None:
    """What a follow or its end is in the last version; a deadlock is its client's 503."""
    follower, followee = dice.sample(USERS[:20], 2)
    statement, change = dice.choice([(FOLLOW, 1), (FOLLOW, 1), (UNFOLLOW, -1)])
    with database.transaction() as connection:
        if connection.execute(statement, {"by": follower, "of": followee}).first():
            connection.execute(COUNT, {"by": follower, "change": change})


def rows(database: Database, statement: str) -> list:
    return database.rows(text(statement), {})


def test_users_of_before_get_ids_in_the_order_of_their_registration(
    database: Database, last_version: None
) -> None:
    database.prepare(MIGRATIONS)

    found = rows(database, "SELECT username, CAST(id AS text) FROM users ORDER BY id")
    ids = [UUID(one) for _, one in found]
    assert [name for name, _ in found] == USERS
    assert {one.version for one in ids} == {7}
    assert [one.int >> 80 for one in ids] == [(1_700_000_000 + n) * 1000 for n in range(len(USERS))]


def test_users_of_before_are_found_by_each_word(database: Database, last_version: None) -> None:
    database.prepare(MIGRATIONS)

    found = rows(database, "SELECT word FROM user_words WHERE username = 'user_007' ORDER BY word")
    assert found == [("007",), ("user",)]


def test_an_instance_of_the_last_version_goes_on_registering(database: Database, last_version: None) -> None:
    database.prepare(MIGRATIONS)
    with database.transaction() as connection:
        connection.execute(REGISTER, {"name": "late_comer", "at": 1_800_000_000})

    [(made,)] = rows(database, "SELECT CAST(id AS text) FROM users WHERE username = 'late_comer'")
    assert (UUID(made).version, UUID(made).int >> 80) == (7, 1_800_000_000_000)
    assert len(rows(database, "SELECT 1 FROM user_words WHERE username = 'late_comer'")) == 2


def test_an_instance_of_the_last_version_neither_shows_nor_registers_nor_follows_a_deleted_user(
    database: Database, last_version: None
) -> None:
    database.prepare(MIGRATIONS)
    UsersStore(database).deletions.begin("user_007", "hash", "last", timedelta(hours=1))

    assert rows(database, "SELECT 1 FROM users WHERE username = 'user_007'") == []
    with pytest.raises(psycopg2.errors.UniqueViolation):
        database.rows(REGISTER, {"name": "user_007", "at": 1_800_000_000})
    for pair, constraint in (
        ({"by": "user_001", "of": "user_007"}, "follows_followee_fkey"),
        ({"by": "user_007", "of": "user_001"}, "follows_follower_fkey"),
    ):
        with pytest.raises(psycopg2.errors.ForeignKeyViolation) as refused:
            database.rows(FOLLOW, pair)
        assert refused.value.diag.constraint_name == constraint


def test_counts_are_exact_while_instances_of_the_last_version_follow(
    database: Database, last_version: None
) -> None:
    is_over = Event()

    def follow(number: int) -> int:
        dice, refused = Random(number), 0
        while not is_over.is_set():
            try:
                change_follow(database, dice)
            except Database.outages:
                refused += 1
        return refused

    with ThreadPoolExecutor(4) as pool:
        refusals = [pool.submit(follow, number) for number in range(4)]
        try:
            _prepare_until_it_works(database)
        finally:
            is_over.set()
        refused = sum(one.result() for one in refusals)

    assert database.rows(WRONG_COUNTS, {}) == []
    assert refused == 0


def _prepare_until_it_works(database: Database) -> None:
    """As the service does."""
    for _ in range(100):
        try:
            return database.prepare(MIGRATIONS)
        except Database.outages as exc:
            outage = exc
    raise outage


def test_several_instances_may_upgrade_at_once(database: Database, last_version: None) -> None:
    others = [Database.connect(database._url, MetaData()) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda one: one.prepare(MIGRATIONS), others))
    for one in others:
        one.close()

    database.prepare(MIGRATIONS)
    assert database.rows(WRONG_COUNTS, {}) == []


def test_an_upgrade_that_was_broken_off_goes_on(
    database: Database, last_version: None, tmp_path: Path
) -> None:
    broken = tmp_path / "broken" / "users_service" / "migrations"
    shutil.copytree(MIGRATIONS, broken)
    migration = next(broken.glob("versions/0003_*"))
    source = migration.read_text()
    migration.write_text(
        source.replace("for statement in REQUIRE_ID:", "for statement in ['SELECT nonsense']:")
    )
    with pytest.raises(Database.outages):
        database.prepare(broken)

    database.prepare(MIGRATIONS)

    assert database.rows(WRONG_COUNTS, {}) == []


def test_deletions_of_before_go_on_where_names_were_kept(database: Database, tmp_path: Path) -> None:
    before = tmp_path / "before" / "users_service" / "migrations"
    shutil.copytree(MIGRATIONS, before, ignore=shutil.ignore_patterns("0006_*"))
    database.prepare(before)
    rows(database, "INSERT INTO deletions VALUES ('alice', now(), 'jti', now())")

    database.prepare(MIGRATIONS)

    assert rows(database, "SELECT service FROM deletion_steps ORDER BY 1") == [("likes",), ("polls",)]
    assert rows(database, "SELECT finished_at FROM deletions") == [(None,)]


def test_tables_that_were_lost_count_followers_again(database: Database) -> None:
    store = UsersStore(Database.connect(database._url, metadata))
    store.prepare()
    store._database.rows(text("DROP TABLE users, follows CASCADE"), {})
    store.prepare()
    for name in ("alice", "bobby"):
        store.register(NewUser(username=name, password="correct horse"), "no hash")
    store.relations.follow("alice", "bobby")

    assert store.profile("bobby").followers_count == 1
    store.close()
