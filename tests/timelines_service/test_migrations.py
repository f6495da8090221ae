"""An upgrade of a database in use: what is there is kept, while instances of the last version go on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from sqlalchemy import text

from common.fields import new_id
from common.postgres.database import Database
from tests.upgrades import new_database, prepare_last_version
from timelines_service.models import Post
from timelines_service.post_query import Page
from timelines_service.store import MIGRATIONS, TimelinesStore

# What an instance of the last version runs.
ADD = text("INSERT INTO posts (id, username, text, created_at) VALUES (:id, :username, :text, :created_at)")
READ = text(
    "SELECT posts.id, posts.username, posts.text, posts.created_at FROM posts ORDER BY id DESC LIMIT 100"
)


@pytest.fixture
def database(postgres: int) -> Iterator[Database]:
    with new_database(postgres) as database:
        yield database


@pytest.fixture
def last_version(database: Database, tmp_path: Path) -> UUID:
    """The schema as the last version makes it, with a post."""
    prepare_last_version(database, MIGRATIONS, tmp_path)
    return _write(database)


def _write(database: Database) -> UUID:
    post = Post(id=new_id(), username="alice", text="Hello!", created_at=datetime.now(UTC))
    database.rows(ADD, {name: getattr(post, name) for name in ("id", "username", "text", "created_at")})
    return post.id


def test_posts_of_the_last_version_are_read_as_plain_ones(database: Database, last_version: UUID) -> None:
    database.prepare(MIGRATIONS)
    later = _write(database)

    found = TimelinesStore(database).newest(Page(9))

    assert [post.id for post in found] == [later, last_version]
    assert {(post.visibility, post.replies_count, post.in_reply_to) for post in found} == {
        ("public", 0, None)
    }


def test_the_last_version_reads_and_writes_while_the_new_one_migrates(
    database: Database, last_version: UUID
) -> None:
    is_done = Event()

    def last_version_goes_on() -> list[UUID]:
        written = []
        while not is_done.is_set():
            written.append(_write(database))
            database.rows(READ, {})
        return written

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(last_version_goes_on)
        try:
            database.prepare(MIGRATIONS)
        finally:
            is_done.set()
        written = writing.result()

    store = TimelinesStore(database)
    assert {post.id for post in store.posts(written)} == set(written)


def test_an_index_whose_making_broke_off_is_made_again(database: Database, last_version: UUID) -> None:
    with database.autocommit() as connection:
        connection.execute(text("CREATE INDEX posts_by_user ON posts (username)"))

    database.prepare(MIGRATIONS)

    with database.autocommit() as connection:
        made = connection.execute(text("SELECT indexdef FROM pg_indexes WHERE indexname = 'posts_by_user'"))
        assert "INCLUDE (repost_of, original_author)" in made.scalar_one()
