"""Mentions of users in posts, in PostgreSQL, and what those users are told.

A mention counts if the user exists. While the users service is away that is not
known: the post is unresolved, and the worker asks later.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from common.postgres.database import Database
from timelines_service.notifications import Cause, change, tell

BATCH = 100
# A mention that is found later, as in posts of an older version, is no news.
NEWS = timedelta(days=1)

UNRESOLVED = text("""
    SELECT id, text FROM posts WHERE NOT is_resolved AND repost_of IS NULL AND text LIKE '%@%'
    ORDER BY id DESC LIMIT :limit
""")
# The text may have been edited meanwhile.
LOCK = text("""
    SELECT id, username, mentions, created_at FROM posts
    WHERE id = :id AND text = :text AND NOT is_resolved FOR NO KEY UPDATE
""")
RESOLVE = text("UPDATE posts SET mentions = :mentions, is_resolved = true WHERE id = :id")


class Mentions:
    """Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unresolved(self) -> list[tuple[UUID, str]]:
        """The ids and texts of some posts whose mentions are not resolved."""
        return self._database.rows(UNRESOLVED, {"limit": BATCH})

    def resolve(self, post_id: UUID, words: str, mentioned: Sequence[str]) -> None:
        """Keep the users whom this text of the post mentions, unless it was edited meanwhile."""
        with self._database.transaction() as connection:
            post = connection.execute(LOCK, {"id": post_id, "text": words}).one_or_none()
            if post is None:
                return
            connection.execute(RESOLVE, {"id": post_id, "mentions": list(mentioned)})
            if datetime.now(UTC) - post.created_at < NEWS:
                tell(connection, *causes(post, set(mentioned).difference(post.mentions)))


def causes(post: Any, mentioned: Iterable[str]) -> list[Cause]:
    """Why these users are told of a post: it mentions them."""
    return [Cause("mention", name, post.username, post_id=post.id) for name in mentioned]


def change_mentions(connection: Connection, post: Any, mentioned: Sequence[str]) -> None:
    """Tell those whom an edited post mentions now, and take it back from those whom it mentioned before."""
    new, gone = set(mentioned).difference(post.mentions), set(post.mentions).difference(mentioned)
    change(connection, causes(post, new), causes(post, gone))
