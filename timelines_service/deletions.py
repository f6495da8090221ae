"""Deletions of posts, and what is swept away after them.

A deletion takes the post, and notes it in `deleted_posts`. From then on no list
shows it, nor what depends on it. A worker sweeps that away in batches: a post
may have a million reposts. Other services learn of it by events.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, text

from common.postgres.database import Database
from common.postgres.outbox import Outbox
from timelines_service import errors
from timelines_service.batches import delete_batch
from timelines_service.deletion_events import tell_of_deleted
from timelines_service.post_query import DELETED_USERS
from timelines_service.post_tags import remove_tags
from timelines_service.reposts import Reposts

BATCH = 1000
POSTS_SWEPT_AT_ONCE = 100

FIND = text(f"""
    SELECT username, repost_of FROM posts WHERE id = :id AND username <> ALL ({DELETED_USERS})
""")  # noqa: S608  what it is made of stands in post_query
# Newest first, as replies lock the posts that they answer: two transactions cannot deadlock.
LOCK = text("""
    SELECT FROM posts WHERE id IN (
        SELECT unnest(ARRAY[id, in_reply_to, repost_of]) FROM posts WHERE id = ANY (:ids)
    ) ORDER BY id DESC FOR NO KEY UPDATE
""")
DELETE = text("""
    DELETE FROM posts WHERE id = ANY (:ids) AND username = :username
    RETURNING id, username, tags, in_reply_to, repost_of, poll_id
""")
NOTE = text("""
    INSERT INTO deleted_posts (post_id, deleted_at)
    SELECT post_id, :at FROM unnest(CAST(:ids AS uuid[])) AS post_id ON CONFLICT DO NOTHING
""")
COUNT = """
    UPDATE posts SET {counter} = {counter} - gone.number
    FROM (
        SELECT id, count(*) AS number FROM unnest(CAST(:ids AS uuid[])) AS id GROUP BY id
    ) AS gone WHERE posts.id = gone.id
"""
COUNT_REPLIES, COUNT_REPOSTS = (text(COUNT.format(counter=counter)) for counter in ("replies", "reposts"))

# SKIP LOCKED: two workers sweep after different posts.
NEXT = text("""
    SELECT post_id FROM deleted_posts WHERE NOT is_swept
    ORDER BY deleted_at LIMIT :posts FOR UPDATE SKIP LOCKED
""")
SWEEP = [
    delete_batch(table, f"{column} = ANY (:ids)")
    for table, column in (
        ("posts", "id"),  # an old worker may have stored it again
        ("bookmarks", "post_id"),
        ("post_versions", "post_id"),
        ("notifications", "post_id"),
    )
]
SWEEP_REPOSTS = delete_batch("posts", "repost_of = ANY (:ids)", "id, username, poll_id")
SWEPT = text("UPDATE deleted_posts SET is_swept = true WHERE post_id = ANY (:ids)")
UNPIN = text("DELETE FROM pins WHERE username = :username AND post_id = ANY (:ids)")


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
            return bool(self.delete_posts(connection, username, [post_id]))

    def delete_posts(self, connection: Connection, username: str, ids: Sequence[UUID]) -> int:
        """Delete these posts and reposts of a user, and what lists or counts them; how many there were.

        `sweep` deletes what else depends on them.
        """
        values = {"ids": list(ids), "username": username}
        connection.execute(LOCK, values)
        deleted = connection.execute(DELETE, values).all()
        at, gone = datetime.now(UTC), [post.id for post in deleted if post.repost_of is None]
        connection.execute(NOTE, {"ids": gone, "at": at})
        tell_of_deleted(self._outbox, connection, deleted, at)
        connection.execute(UNPIN, {"ids": gone, "username": username})
        for post in deleted:
            remove_tags(connection, post)
        for count, column in ((COUNT_REPLIES, "in_reply_to"), (COUNT_REPOSTS, "repost_of")):
            if counted := [one for post in deleted if (one := getattr(post, column))]:
                connection.execute(count, {"ids": counted})
        return len(deleted)

    def sweep(self) -> bool:
        """Delete a batch of what some deleted posts left; False when there is nothing left to sweep."""
        with self._database.transaction() as connection:
            ids = connection.execute(NEXT, {"posts": POSTS_SWEPT_AT_ONCE}).scalars().all()
            if not ids:
                return False
            values = {"ids": list(ids), "limit": BATCH}
            reposts = connection.execute(SWEEP_REPOSTS, values).all()
            tell_of_deleted(self._outbox, connection, reposts, datetime.now(UTC))
            swept = [connection.execute(statement, values).rowcount for statement in SWEEP]
            swept.append(len(reposts))
            if max(swept) < BATCH:
                connection.execute(SWEPT, values)
        return True
