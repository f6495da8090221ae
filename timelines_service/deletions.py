"""Deletions of posts, and what is swept away after them.

A deletion takes the post, and notes it in `deleted_posts`. From then on no list
shows it, nor what depends on it. A worker sweeps that away in batches: a post
may have a million reposts. Other services learn of it by events.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, text

from common.jobs.tubes import event_tube
from common.postgres.database import Database
from common.postgres.outbox import Outbox
from timelines_service import errors
from timelines_service.post_tags import remove_tags
from timelines_service.reposts import Reposts

BATCH = 1000

FIND = text("SELECT username, repost_of FROM posts WHERE id = :id")
DELETE = text("DELETE FROM posts WHERE id = :id RETURNING id, username, tags, in_reply_to, poll_id")
NOTE = text("INSERT INTO deleted_posts (post_id, deleted_at) VALUES (:id, :at)")
COUNT_REPLY = text("UPDATE posts SET replies = replies - 1 WHERE id = :id")

# SKIP LOCKED: two workers sweep after two posts.
NEXT = text("""
    SELECT post_id FROM deleted_posts WHERE NOT is_swept
    ORDER BY deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
SWEEP = [
    text(f"""
        DELETE FROM {table} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table} WHERE {column} = :id LIMIT :limit
        ))
    """)  # noqa: S608  names of our own
    for table, column in (
        ("posts", "id"),  # an old worker may have stored it again
        ("posts", "repost_of"),
        ("bookmarks", "post_id"),
        ("post_versions", "post_id"),
        ("notifications", "post_id"),
    )
]
SWEPT = text("UPDATE deleted_posts SET is_swept = true WHERE post_id = :id")
UNPIN = text("DELETE FROM pins WHERE username = :username AND post_id = :id")


LIKES_TUBE, POLLS_TUBE = event_tube("likes"), event_tube("polls")


class PostDeleted(BaseModel):
    """An event: a post is gone since then."""

    kind: Literal["post_deleted"] = "post_deleted"
    post_id: UUID
    at: datetime


class PostWithPollDeleted(PostDeleted):
    """An event: a post is gone since then, and this user's poll was in it."""

    poll_id: UUID
    username: str


class Deletions:
    """Deletes posts for good. Threads may share it."""

    def __init__(self, database: Database, reposts: Reposts, outbox: Outbox) -> None:
        self._database = database
        self._reposts = reposts
        self._outbox = outbox

    def delete(self, post_id: UUID, username: str) -> None:
        """Delete a user's own post or repost. Raises NotFound, Forbidden."""
        found = self._database.rows(FIND, {"id": post_id})
        if not found:
            raise errors.post_not_found()
        [(author, repost_of)] = found
        if author != username:
            raise errors.not_your_post()
        is_deleted = (
            self._reposts.remove(repost_of, username)[1] if repost_of else self._delete(post_id, username)
        )
        if not is_deleted:
            raise errors.post_not_found()

    def _delete(self, post_id: UUID, username: str) -> bool:
        with self._database.transaction() as connection:
            deleted = connection.execute(DELETE, {"id": post_id}).one_or_none()
            if deleted is None:
                return False
            at = datetime.now(UTC)
            connection.execute(NOTE, {"id": post_id, "at": at})
            tell_of_deleted(self._outbox, connection, [deleted], at)
            remove_tags(connection, deleted)
            connection.execute(UNPIN, {"id": post_id, "username": username})
            if deleted.in_reply_to:
                connection.execute(COUNT_REPLY, {"id": deleted.in_reply_to})
        return True

    def sweep(self) -> bool:
        """Delete a batch of what one deleted post left; False when there is nothing left to sweep."""
        with self._database.transaction() as connection:
            post_id = connection.execute(NEXT).scalar_one_or_none()
            if post_id is None:
                return False
            values = {"id": post_id, "limit": BATCH}
            swept = [connection.execute(statement, values).rowcount for statement in SWEEP]
            if max(swept) < BATCH:
                connection.execute(SWEPT, {"id": post_id})
        return True


def tell_of_deleted(outbox: Outbox, connection: Connection, posts: Sequence[Any], at: datetime) -> None:
    """Record events of these posts' deletion: rows with `id`, `username` and `poll_id`, none of a repost."""
    outbox.record(connection, LIKES_TUBE, *(PostDeleted(post_id=post.id, at=at) for post in posts))
    with_poll = [
        PostWithPollDeleted(post_id=post.id, at=at, poll_id=post.poll_id, username=post.username)
        for post in posts
        if post.poll_id
    ]
    outbox.record(connection, POLLS_TUBE, *with_poll)
