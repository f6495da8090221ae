"""Posts in PostgreSQL."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlalchemy import URL, bindparam, insert, select
from sqlalchemy.dialects import postgresql

from common.postgres.database import Database
from timelines_service import errors, idempotency
from timelines_service.home_timelines import BY_FOLLOWEE, FEW_FOLLOWEES, FROM_RECENT
from timelines_service.models import Post
from timelines_service.tables import metadata, posts

MIGRATIONS = Path(__file__).parent / "migrations"

# The first page is what comes before the last id that there can be: one statement for every page.
LAST_ID = UUID(int=2**128 - 1)

# Built once: making a statement costs more than running it.
POST = select(posts).where(posts.c.id == bindparam("id"))
NEWEST = (
    select(posts)
    .where(posts.c.id < bindparam("before"))
    .order_by(posts.c.id.desc())
    .limit(bindparam("limit"))
)
NEWEST_BY_USER = NEWEST.where(posts.c.username == bindparam("username"))
ADD = insert(posts)
ADD_MISSING = postgresql.insert(posts).on_conflict_do_nothing(index_elements=[posts.c.id])


class TimelinesStore:
    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ping = database.ping
        self.close = database.close

    @classmethod
    def connect(cls, url: URL) -> Self:
        return cls(Database.connect(url, metadata))

    def prepare(self) -> None:
        self._database.prepare(MIGRATIONS)

    def add(self, post: Post, key: str | None = None) -> Post:
        """The post stored: this one, or the first one with the same key. Raises Unprocessable."""
        if key is not None:
            return self._add_once(post, key)
        self._database.rows(ADD, post.model_dump())
        return post

    def _add_once(self, post: Post, key: str) -> Post:
        with self._database.transaction() as connection:
            first_id = idempotency.reserve(connection, post, key)
            if first_id != post.id:
                return _post(connection.execute(POST, {"id": first_id}).one())
            connection.execute(ADD, post.model_dump())
        return post

    def add_missing(self, accepted: Sequence[Post]) -> None:
        """Store those of these posts that are not there yet."""
        with self._database.transaction() as connection:
            connection.execute(ADD_MISSING, [post.model_dump() for post in accepted])

    def delete_expired_keys(self) -> None:
        """Delete some idempotency keys that are older than promised."""
        idempotency.delete_expired(self._database)

    def post(self, post_id: UUID) -> Post:
        """Raises NotFound."""
        found = self._posts(POST, {"id": post_id})
        if not found:
            raise errors.post_not_found()
        return found[0]

    def newest(self, limit: int, before: UUID | None) -> list[Post]:
        """Everybody's posts."""
        return self._posts(NEWEST, {"limit": limit, "before": before or LAST_ID})

    def newest_by_user(self, username: str, limit: int, before: UUID | None) -> list[Post]:
        values = {"username": username, "limit": limit, "before": before or LAST_ID}
        return self._posts(NEWEST_BY_USER, values)

    def newest_by_users(self, usernames: Sequence[str], limit: int, before: UUID | None) -> list[Post]:
        """The posts of any of these users."""
        # One string: an array of thousands of parameters would take longer than the query.
        followees = "{" + ",".join(usernames) + "}"
        values = {"followees": followees, "limit": limit, "before": before or LAST_ID}
        if len(usernames) > FEW_FOLLOWEES:
            found = self._posts(FROM_RECENT, values)
            if len(found) == limit:
                return found
        return self._posts(BY_FOLLOWEE, values)

    def _posts(self, statement: Any, values: dict[str, Any]) -> list[Post]:
        return [_post(row) for row in self._database.rows(statement, values)]


def _post(row: Any) -> Post:
    # What is stored was valid when it came in; checking it again would cost more than reading it.
    post_id, username, words, created_at = row
    return Post.model_construct(id=post_id, username=username, text=words, created_at=created_at)
