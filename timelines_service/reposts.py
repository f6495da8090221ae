"""Reposts: rows of posts that show another post, at most one a user and post."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from common.fields import new_id, time_of
from common.postgres.database import Database
from common.postgres.outbox import Outbox
from timelines_service import errors
from timelines_service.deletion_events import tell_of_deleted
from timelines_service.models import Reposter
from timelines_service.notifications import Cause, tell, withdraw
from timelines_service.post_query import DELETED_USERS, Found, Page, PostList

# Of a repost, the original. Its lock comes before the repost's: so the original is there until the end.
FIND_ORIGINAL = f"""
    SELECT id, username, text FROM posts
    WHERE id = (SELECT COALESCE(repost_of, id) FROM posts WHERE id = :id)
        AND username <> ALL ({DELETED_USERS})
"""  # noqa: S608  what it is made of stands in post_query
# The first keeps a deletion from leaving a mark behind; the second one is for a change, too.
KEEP, LOCK = (text(f"{FIND_ORIGINAL} FOR {lock}") for lock in ("KEY SHARE", "NO KEY UPDATE"))
ADD = text("""
    INSERT INTO posts (id, username, text, created_at, repost_of, original_author, is_parsed)
    VALUES (:id, :username, :text, :created_at, :repost_of, :original_author, true)
    ON CONFLICT (repost_of, username) WHERE repost_of IS NOT NULL DO NOTHING RETURNING id
""")
FIND = text("SELECT id FROM posts WHERE repost_of = :repost_of AND username = :username")
REMOVE = text("""
    DELETE FROM posts WHERE repost_of = :repost_of AND username = :username RETURNING id, username, poll_id
""")
COUNT = text("UPDATE posts SET reposts = reposts + :change WHERE id = :id")
# Of each repost, the users who reposted the same post before it: the last ones, of many.
EARLIER = text("""
    SELECT repost.id, earlier.username
    FROM posts AS repost CROSS JOIN LATERAL (
        SELECT username FROM posts
        WHERE posts.repost_of = repost.repost_of AND posts.id < repost.id
        ORDER BY id DESC LIMIT :limit
    ) AS earlier
    WHERE repost.id = ANY (CAST(:ids AS uuid[]))
""")
MAX_EARLIER = 1000
REPOSTERS = PostList(
    """
    SELECT {first} username, created_at, id FROM posts AS page
    WHERE repost_of = :repost_of AND id {past} :cursor AND username <> ALL ({deleted_users})
    ORDER BY id {order} LIMIT :limit
    """,
    deleted_users=DELETED_USERS,
)


class Reposts:
    """Who has reposted what. Threads may share it."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    def add(self, post_id: UUID, username: str) -> tuple[UUID, bool]:
        """The id of the user's repost, and whether it is new. Raises NotFound."""
        with self._database.transaction() as connection:
            original = lock_original(connection, post_id, LOCK)
            values = {"repost_of": original.id, "username": username}
            repost_id = new_id()
            repost = values | {
                "id": repost_id,
                "text": original.text,
                "created_at": time_of(repost_id),
                "original_author": original.username,
            }
            if added := connection.execute(ADD, repost).scalar_one_or_none():
                connection.execute(COUNT, {"id": original.id, "change": 1})
                tell(connection, _cause(original, username))
            found: UUID | None = added or connection.execute(FIND, values).scalar_one_or_none()
            if found is None:
                raise errors.post_not_found()  # the user was deleted just now
            return found, added is not None

    def remove(self, post_id: UUID, username: str) -> tuple[UUID, bool]:
        """Undo the user's repost; the original's id, and whether there was one. Raises NotFound."""
        with self._database.transaction() as connection:
            original = lock_original(connection, post_id, LOCK)
            values = {"repost_of": original.id, "username": username}
            removed = connection.execute(REMOVE, values).all()
            if removed:
                tell_of_deleted(self._outbox, connection, removed, datetime.now(UTC))
                connection.execute(COUNT, {"id": original.id, "change": -1})
                withdraw(connection, _cause(original, username))
        return original.id, bool(removed)

    def earlier_reposters(self, ids: Sequence[UUID]) -> dict[UUID, set[str]]:
        """Of each of these reposts that is not the first one, the users who reposted the same post before."""
        earlier: dict[UUID, set[str]] = {}
        if ids:
            for repost_id, username in self._database.rows(EARLIER, {"ids": list(ids), "limit": MAX_EARLIER}):
                earlier.setdefault(repost_id, set()).add(username)
        return earlier

    def reposters(self, post_id: UUID, page: Page) -> Found[Reposter]:
        """The users who have reposted this original, the newest repost first."""
        rows = REPOSTERS.rows(self._database, None, page, repost_of=post_id)
        return rows.map(lambda row: Reposter(username=row[0], reposted_at=row[1], repost_id=row[2]))


def _cause(original: Any, username: str) -> Cause:
    return Cause("repost", original.username, username, post_id=original.id)


def lock_original(connection: Connection, post_id: UUID, lock: TextClause) -> Any:
    """The row that `lock` finds of a post, or of the one that it reposts. Raises NotFound."""
    original = connection.execute(lock, {"id": post_id}).one_or_none()
    if original is None:
        raise errors.post_not_found()
    return original
