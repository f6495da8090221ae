"""Edits of posts, and the texts that they replaced."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from common.postgres.database import Database
from timelines_service import errors
from timelines_service.full_text import document
from timelines_service.mentions import change_mentions
from timelines_service.models import PostVersion
from timelines_service.post_query import DELETED_USERS
from timelines_service.post_tags import add_tags, remove_tags
from timelines_service.tags import hashtags, mentions

LOCK = text(f"""
    SELECT id, username, repost_of, text, tags, mentions FROM posts
    WHERE id = :id AND username <> ALL ({DELETED_USERS}) FOR NO KEY UPDATE
""")  # noqa: S608  what it is made of stands in post_query
KEEP = text("""
    INSERT INTO post_versions (post_id, version, text, created_at)
    SELECT id, COALESCE((SELECT max(version) FROM post_versions WHERE post_id = :id), 0) + 1,
        text, COALESCE(edited_at, created_at)
    FROM posts WHERE id = :id
""")
EDIT = text("""
    UPDATE posts SET text = :text, edited_at = :edited_at, tags = :tags, is_parsed = true,
        mentions = :mentions, is_resolved = :is_resolved,
        words = CASE WHEN NOT is_unlisted THEN CAST(:words AS tsvector) END
    WHERE id = :id
""")
VERSIONS = text("""
    SELECT version, text, created_at FROM post_versions
    WHERE post_id = :id AND version < :before AND version > :after
    ORDER BY CASE WHEN :is_forward THEN version ELSE -version END LIMIT :limit
""")
LAST_VERSION = 2**31 - 1


class Edits:
    """What a post says, and said before. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def edit(self, post_id: UUID, username: str, words: str, mentioned: Sequence[str] | None = ()) -> None:
        """Replace a post's text; the same text changes nothing. `mentioned` is None if it is not known yet.

        Raises NotFound, Forbidden, and BadRequest for a repost.
        """
        with self._database.transaction() as connection:
            found = connection.execute(LOCK, {"id": post_id}).one_or_none()
            if found is None:
                raise errors.post_not_found()
            if found.username != username:
                raise errors.not_your_post()
            if found.repost_of:
                raise errors.repost_has_no_text()
            if found.text != words:
                # Another statement: it sees what the transaction had to wait for.
                connection.execute(KEEP, {"id": post_id})
                remove_tags(connection, found)
                change = _columns(words, post_id, _kept(found, words) if mentioned is None else mentioned)
                change["is_resolved"] = mentioned is not None
                connection.execute(EDIT, change)
                add_tags(connection, [post_id])
                change_mentions(connection, found, change["mentions"])

    def versions(
        self, post_id: UUID, limit: int, before: int | None = None, after: int | None = None
    ) -> list[PostVersion]:
        """The earlier texts, newest first."""
        values = {
            "id": post_id,
            "limit": limit,
            "before": before or LAST_VERSION,
            "after": after or 0,
            "is_forward": after is not None,
        }
        rows = self._database.rows(VERSIONS, values)
        found = [PostVersion(version=version, text=words, created_at=at) for version, words, at in rows]
        return found[::-1] if after is not None else found


def _kept(post: Any, words: str) -> list[str]:
    """Those who are mentioned already, and by the new text, too."""
    named = mentions(words)
    return [name for name in post.mentions if name in named]


def _columns(words: str, post_id: UUID, mentioned: Sequence[str]) -> dict[str, Any]:
    return {
        "id": post_id,
        "text": words,
        "edited_at": datetime.now(UTC),
        "tags": hashtags(words),
        "mentions": list(mentioned),
        "words": document(words, post_id),
    }
