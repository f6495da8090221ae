"""How posts are read: the columns of each, and a list of them in both directions.

Lists are in the order of ids, which are made before the commit: a post may come
into a list when newer ones have been shown already, most of all one that was
queued. So a page says which transactions it has seen, as a place in the log of
streams, and the page of newer posts that follows it begins with what has
committed late since. Decision 36 has the reasons.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import text

from common.fields import time_of
from common.postgres.database import Database
from common.staleness import may_be_stale
from timelines_service.models import Post
from timelines_service.stream_log import Position, Snapshot, StreamLog

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

# In each row of a list, first: what the statement sees. To plan a subselect would take longer. A standby's
# snapshot does not name the transactions that still run.
SEEN = "CASE WHEN NOT pg_is_in_recovery() THEN pg_current_snapshot() END,"
# How much the clocks of instances may differ.
CLOCKS_SECONDS = 60

Item = TypeVar("Item")
Other = TypeVar("Other")


class Page(NamedTuple):
    """Which part of a list: at most `limit` items, next to a cursor if there is one.

    With `after`, `seen` is what the page with that cursor had seen.
    """

    limit: int
    before: UUID | None = None
    after: UUID | None = None
    seen: Position | None = None


class Found(list[Item]):
    """A part of a list, newest first, and what its reader has seen of the whole list with it."""

    def __init__(self, items: Iterable[Item] = (), seen: Position | None = None) -> None:
        super().__init__(items)
        self.seen = seen

    def map(self, change: Callable[[Item], Other]) -> "Found[Other]":
        return Found(map(change, self), self.seen)


class PostQuery:
    """A statement that finds posts, with what a reader has done with them where there is a reader."""

    def __init__(self, statement: str, first: str = "", **parts: str) -> None:
        self.statement, self._marked = (
            text(statement.format(first=first, columns=first + columns, content=CONTENT, **parts))
            for columns in (COLUMNS, COLUMNS + MARKS)
        )

    def run(self, database: Database, reader: str | None, values: dict[str, Any]) -> list[Post]:
        return [shown(row) for row in self.rows(database, reader, values)]

    def rows(self, database: Database, reader: str | None, values: dict[str, Any]) -> list[Any]:
        if reader is None:
            return database.rows(self.statement, values)
        return database.rows(self._marked, values | {"reader": reader})


class PostList:
    """Posts of a table that is named `page`, newest first.

    Its statement says `{past} :cursor`, and `{order}` where it sorts. It selects `{first}` before all else,
    or `{columns}`, which begin with it.
    """

    def __init__(self, statement: str, **parts: str) -> None:
        self.older = PostQuery(statement, SEEN, past="<", order="DESC", **parts)
        self.newer = PostQuery(statement, SEEN, past=">", order="ASC", **parts)
        self.late = PostQuery(statement, "page.id,", past="IN", order="DESC", **parts)

    def read(self, database: Database, reader: str | None, page: Page, **values: Any) -> Found[Post]:
        """The items nearest to the cursor, newest first."""
        return self.rows(database, reader, page, **values).map(shown)

    def rows(self, database: Database, reader: str | None, page: Page, **values: Any) -> Found[Any]:
        """The same, as rows without `{first}`."""

        def run(query: PostQuery, cursor: object, limit: int = page.limit) -> list[Any]:
            return query.rows(database, reader, values | {"cursor": cursor, "limit": limit})

        if page.after is None:
            return _found(run(self.older, page.before or LAST_ID))
        # What is new is what a standby may lack.
        may_be_stale.set(False)
        newer = _found(run(self.newer, page.after)[::-1])
        if page.seen is None:
            return newer
        late = LatePosts(StreamLog(database), partial(run, self.late), page.after, page.limit)
        return late.before(newer, page.seen)


class LatePosts(NamedTuple):
    """The posts of a list that are before a cursor, and were committed after the cursor was read."""

    log: StreamLog
    run: Callable[[tuple[UUID, ...], int], list[Any]]
    cursor: UUID
    limit: int

    def before(self, newer: Found[Any], seen: Position) -> Found[Any]:
        """A page of what a reader who has seen so much has not: first what is late, then these newer ones."""
        # Without newer ones the cursor stays, so that a later end of the log hides none.
        now = newer.seen or self.log.now()
        if seen.is_lost(now) or self._is_ahead(now):
            return newer
        if not seen.is_end and (late := self._within(seen)):
            return late
        late = self._within(seen.at_end().followed_by(now))
        if late.seen != now:
            return late
        return Found([*newer[len(late) - self.limit :], *late], now)

    def _is_ahead(self, now: Position) -> bool:
        """Whether the cursor is of no post: to it, the whole log would be late."""
        return self.cursor.int >> 80 > (now.at + CLOCKS_SECONDS) * 1000

    def _within(self, part: Position) -> Found[Any]:
        """Those of a part of the log; where there are more than a page shows, `seen` has the rest."""
        rows: list[Any] = []
        places: dict[UUID, Position] = {}
        rest: Position | None = part
        while not rows and rest:
            read = self.log.late(rest, self.cursor)
            places = {event.item_id: event.position for event in read.events}
            rows, rest = self.run(tuple(places), len(places)) if places else [], read.rest
        most = max(self.limit - 1, 1)
        if len(rows) > most:
            rows = sorted(rows, key=lambda row: places[row[0]])[:most]
            rest = places[rows[-1][0]]
        newest_first = sorted(rows, key=itemgetter(0), reverse=True)
        return Found((row[1:] for row in newest_first), rest or part.at_end())


def _found(rows: list[Any]) -> Found[Any]:
    """These rows, and what their statement has seen: each begins with it."""
    items = [row[1:] for row in rows]
    if not rows or rows[0][0] is None:
        return Found(items)
    seen = Snapshot.from_postgres(rows[0][0])
    return Found(items, Position(int(time.time()), seen, seen))


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
