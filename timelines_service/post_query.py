"""How posts are read: the columns of each, and a list of them in both directions."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from common.fields import time_of
from common.postgres.database import Database
from timelines_service.models import Post

# The first page is what comes before the last id that there can be: one statement for every page.
LAST_ID = UUID(int=2**128 - 1)

# Users whose posts are being swept away: no statement shows them meanwhile.
DELETED_USERS = "ARRAY(SELECT username FROM deleted_users WHERE cleared_at IS NULL)"

# `page` is the row in the list. `content` is what it shows: itself, or the original of a repost. The join
# leaves out a repost whose original is gone.
CONTENT = f"""JOIN posts AS content ON content.id = COALESCE(page.repost_of, page.id)
    AND NOT ARRAY[page.username, content.username] && {DELETED_USERS}"""
COLUMNS = """
    content.id, content.username, content.text, content.created_at, content.in_reply_to, content.replies,
    content.reposts, content.edited_at, content.tags, content.mentions, content.warning, content.poll_id,
    content.is_unlisted,
    page.id, page.username
"""
# What the reader has done with a post: a few probes for each one, in the statement that reads the page. Not
# EXISTS, for which the planner weighs another plan each, longer than the probes take.
MARKS = """,
    (SELECT true FROM posts AS mine WHERE mine.repost_of = content.id AND mine.username = :reader) IS TRUE,
    (SELECT true FROM bookmarks AS one WHERE one.post_id = content.id AND one.username = :reader) IS TRUE,
    (SELECT true FROM pins WHERE pins.username = :reader AND pins.post_id = content.id) IS TRUE
"""

FIELDS = (
    "id", "username", "text", "created_at", "in_reply_to", "replies_count", "reposts_count", "edited_at",
    "tags", "mentions", "warning", "poll_id", "visibility",
)  # fmt: skip
MARK_FIELDS = ("reposted", "bookmarked", "pinned")
LAST_FIELD = len(FIELDS) - 1
FIRST_MARK = len(FIELDS) + 2


class Page(NamedTuple):
    """Which part of a list: at most `limit` items, next to a cursor if there is one."""

    limit: int
    before: UUID | None = None
    after: UUID | None = None


class PostQuery:
    """A statement that finds posts, with what a reader has done with them where there is a reader."""

    def __init__(self, statement: str, **parts: str) -> None:
        self.statement, self._marked = (
            text(statement.format(columns=columns, content=CONTENT, **parts))
            for columns in (COLUMNS, COLUMNS + MARKS)
        )

    def run(self, database: Database, reader: str | None, values: dict[str, Any]) -> list[Post]:
        return [shown(row) for row in self.rows(database, reader, values)]

    def rows(self, database: Database, reader: str | None, values: dict[str, Any]) -> list[Any]:
        if reader is None:
            return database.rows(self.statement, values)
        return database.rows(self._marked, values | {"reader": reader})


class PostList:
    """Posts, newest first. Its statement says `{past} :cursor`, and `{order}` where it sorts."""

    def __init__(self, statement: str, **parts: str) -> None:
        self.older = PostQuery(statement, past="<", order="DESC", **parts)
        self.newer = PostQuery(statement, past=">", order="ASC", **parts)

    def read(self, database: Database, reader: str | None, page: Page, **values: Any) -> list[Post]:
        """The items nearest to the cursor, newest first."""
        return [shown(row) for row in self.rows(database, reader, page, **values)]

    def rows(self, database: Database, reader: str | None, page: Page, **values: Any) -> list[Any]:
        values["limit"] = page.limit
        if page.after is None:
            return self.older.rows(database, reader, values | {"cursor": page.before or LAST_ID})
        return self.newer.rows(database, reader, values | {"cursor": page.after})[::-1]


def array_of(usernames: Sequence[str]) -> str:
    """An array in one string: one of thousands of parameters would take longer than the query."""
    return "{" + ",".join(usernames) + "}"


def shown(row: Any) -> Post:
    """The post of a row of COLUMNS, and of MARKS if they were read."""
    # What is stored was valid when it came in; checking it again would cost more than reading it.
    values: dict[str, Any] = dict(zip(FIELDS, row[:LAST_FIELD], strict=False))
    values["visibility"] = "unlisted" if row[LAST_FIELD] else "public"
    if len(row) > FIRST_MARK:
        values.update(zip(MARK_FIELDS, row[FIRST_MARK:], strict=True))
    original = Post.model_construct(**values)
    page_id, username = row[LAST_FIELD + 1 : FIRST_MARK]
    if page_id == original.id:
        return original
    # The id says when the repost was made: the columns need not.
    return original.model_copy(
        update={
            "id": page_id,
            "username": username,
            "created_at": time_of(page_id),
            "in_reply_to": None,
            "repost_of": original,
        }
    )
