"""Hashtags of posts in PostgreSQL: the posts of a tag, and the tags in use."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from common.fields import first_id
from common.postgres.database import Database
from timelines_service.models import Post, TagInUse
from timelines_service.post_query import DELETED_USERS, Page, PostList
from timelines_service.tags import hashtags

DAYS_IN_USE = 7
BATCH = 100

ADD = text("""
    INSERT INTO post_tags (username, tag, post_id, is_unlisted)
    SELECT username, unnest(tags), id, is_unlisted FROM posts WHERE id = ANY (:ids)
""")
REMOVE = text("DELETE FROM post_tags WHERE username = :username AND tag = ANY (:tags) AND post_id = :id")
TAGGED = PostList("""
    SELECT {columns} FROM post_tags JOIN posts AS page ON page.id = post_tags.post_id {content}
    WHERE post_tags.tag = :tag AND NOT post_tags.is_unlisted AND post_tags.post_id {past} :cursor
    ORDER BY post_tags.post_id {order} LIMIT :limit
""")
TAGGED_BY_USER = PostList("""
    SELECT {columns} FROM post_tags JOIN posts AS page ON page.id = post_tags.post_id {content}
    WHERE post_tags.username = :username AND post_tags.tag = :tag AND post_tags.post_id {past} :cursor
        AND (:replies OR page.in_reply_to IS NULL)
    ORDER BY post_tags.post_id {order} LIMIT :limit
""")
# Less those of deleted users. These have a subquery of their own, since the index of all has no usernames.
IN_USE = text(f"""
    WITH counted AS (
        SELECT tag, sum(posts) AS posts FROM (
            SELECT tag, count(*) AS posts FROM post_tags
            WHERE post_id > :since AND NOT is_unlisted GROUP BY tag
            UNION ALL
            SELECT tag, -count(*) FROM post_tags
            WHERE post_id > :since AND NOT is_unlisted AND username = ANY ({DELETED_USERS}) GROUP BY tag
        ) AS parts GROUP BY tag HAVING sum(posts) > 0
    ), last AS (
        SELECT CAST(:before AS text) AS tag,
            COALESCE(CAST(:seen AS bigint), (SELECT posts FROM counted WHERE tag = :before)) AS posts
    )
    SELECT counted.tag, counted.posts FROM counted, last
    WHERE last.tag IS NULL OR counted.posts < last.posts
        OR (counted.posts = last.posts AND counted.tag > last.tag COLLATE "C")
    ORDER BY counted.posts DESC, counted.tag LIMIT :limit
""")  # noqa: S608  what it is made of stands in post_query
# Instances of the last version write posts without their tags.
UNPARSED = text("""
    SELECT id, text FROM posts WHERE NOT is_parsed AND text LIKE '%#%'
    ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")
PARSED = text("UPDATE posts SET tags = :tags, is_parsed = true WHERE id = :id")


class PostTags:
    """Posts by their tags. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def posts(self, tag: str, page: Page, reader: str | None) -> list[Post]:
        """The posts with a tag, but for unlisted ones."""
        return TAGGED.read(self._database, reader, page, tag=tag)

    def posts_by_user(
        self, username: str, tag: str, page: Page, reader: str | None, *, with_replies: bool
    ) -> list[Post]:
        """A user's own posts with a tag."""
        values = {"username": username, "tag": tag, "replies": with_replies}
        return TAGGED_BY_USER.read(self._database, reader, page, **values)

    def in_use(self, limit: int, before: str | None, seen: int | None = None) -> list[TagInUse]:
        """The tags of the last days, the most used first, from the one after `before` on.

        `seen` is how many posts that one had: without it, one that is used no more ends the list.
        """
        since = first_id(datetime.now(UTC) - timedelta(days=DAYS_IN_USE))
        rows = self._database.rows(IN_USE, {"since": since, "limit": limit, "before": before, "seen": seen})
        return [TagInUse(tag=tag, posts_count=posts) for tag, posts in rows]

    def parse_missing(self) -> bool:
        """Find the tags of some posts whose tags were not looked for; False when there are no more."""
        with self._database.transaction() as connection:
            found = connection.execute(UNPARSED, {"limit": BATCH}).all()
            for post in found:
                connection.execute(PARSED, {"id": post.id, "tags": hashtags(post.text)})
            add_tags(connection, [post.id for post in found])
        return len(found) == BATCH


def add_tags(connection: Connection, ids: Sequence[UUID]) -> None:
    """Enter these posts under their tags."""
    if ids:
        connection.execute(ADD, {"ids": list(ids)})


def remove_tags(connection: Connection, post: Any) -> None:
    """Remove a post, of which this is the row, from its tags."""
    if post.tags:
        connection.execute(REMOVE, {"username": post.username, "tags": post.tags, "id": post.id})
