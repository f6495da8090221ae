"""Threads: what a post answers, and what answers it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from common.postgres.database import Database
from timelines_service.models import Post
from timelines_service.post_query import Page, PostList, PostQuery

REPLIES = PostList("""
    SELECT {columns} FROM posts AS page {content}
    WHERE page.in_reply_to = :post_id AND page.id {past} :cursor
    ORDER BY page.id {order} LIMIT :limit
""")
# One by one, by the primary key.
ANCESTORS = PostQuery("""
    WITH RECURSIVE thread (id, in_reply_to, height) AS (
        SELECT id, in_reply_to, 0 FROM posts WHERE id = :post_id
        UNION ALL
        SELECT parent.id, parent.in_reply_to, thread.height + 1
        FROM thread JOIN posts AS parent ON parent.id = thread.in_reply_to
        WHERE thread.height < :limit
    )
    SELECT {columns} FROM thread JOIN posts AS page ON page.id = thread.id {content}
    WHERE thread.height > 0 ORDER BY thread.height DESC
""")
# Level by level, the oldest replies of each post first, so that whatever is shown has its parent shown. The
# inner LIMIT ends the recursion: a page costs its own size, however many replies there are.
DESCENDANTS = PostQuery("""
    WITH RECURSIVE thread (id, depth) AS (
        SELECT CAST(:post_id AS uuid), 0
        UNION ALL
        SELECT reply.id, thread.depth + 1
        FROM thread CROSS JOIN LATERAL (
            SELECT id FROM posts WHERE in_reply_to = thread.id ORDER BY id LIMIT :limit
        ) AS reply
        WHERE thread.depth < :depth
    ), nearest AS MATERIALIZED (SELECT id FROM thread OFFSET 1 LIMIT :limit)
    SELECT {columns} FROM nearest JOIN posts AS page ON page.id = nearest.id {content}
    ORDER BY page.id
""")


class Reach(NamedTuple):
    """How much of a thread is shown."""

    ancestors: int
    descendants: int
    depth: int


class Threads:
    """Reads threads. Threads of a process may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def replies(self, post_id: UUID, page: Page, reader: str | None) -> list[Post]:
        """The direct replies to a post."""
        return REPLIES.read(self._database, reader, page, post_id=post_id)

    def ancestors(self, post_id: UUID, reach: Reach, reader: str | None) -> list[Post]:
        """The posts that this one answers, the first one of the thread before the others."""
        return ANCESTORS.run(self._database, reader, {"post_id": post_id, "limit": reach.ancestors})

    def descendants(self, post_id: UUID, reach: Reach, reader: str | None) -> list[Post]:
        """Answers, answers to answers and so on, each one after the post that it answers."""
        values = {"post_id": post_id, "limit": reach.descendants, "depth": reach.depth}
        return list(_depth_first(post_id, DESCENDANTS.run(self._database, reader, values)))


def _depth_first(post_id: UUID, found: Sequence[Post]) -> Iterator[Post]:
    """These posts, oldest first, in the order in which a reader sees a thread."""
    replies: dict[UUID | None, list[Post]] = {}
    for post in reversed(found):
        replies.setdefault(post.in_reply_to, []).append(post)
    pending = replies.get(post_id, [])
    while pending:
        post = pending.pop()
        yield post
        pending.extend(replies.get(post.id, ()))
