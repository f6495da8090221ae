"""Posts found by their words, in PostgreSQL.

An index of words has no order: to show the newest posts with a common word, all
of them would have to be sorted. So the newest posts of all are looked at first;
they fill a page if the words are common. Else the index is asked, for shorter
times until few enough posts of each have the words. Decision 14 has the
measurements.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import text

from common.postgres.database import Database
from timelines_service.full_text import SHORTEST_TIME, document, query, within
from timelines_service.models import Post
from timelines_service.post_query import DELETED_USERS, Found, Page, PostList, PostQuery, array_of
from timelines_service.stream_log import StreamLog

# So many posts are looked at in about the time in which so many are found by the index, and sorted.
WINDOW = 2000
MOST = 2000
# Where more posts are found, it is looked for them in so many shorter times instead.
PARTS = 8
# No limit, for a time that is too short to be divided.
ALL = 2**62
BATCH = 100

IN_ORDER = PostList(
    """
    SELECT {first} page.id
    FROM (
        SELECT id, username, words FROM posts WHERE id {past} :cursor ORDER BY id {order} LIMIT {window}
    ) AS page
    WHERE page.words @@ CAST(:query AS tsquery) AND page.username <> ALL (CAST(:hidden AS text[]))
        AND page.username <> ALL ({deleted_users})
    ORDER BY page.id {order} LIMIT :limit
""",
    window=str(WINDOW),
    deleted_users=DELETED_USERS,
)
# The subselect hides the query from the planner, which would multiply the frequencies of its words, and read
# the whole table for two common ones.
BY_INDEX = text(f"""
    SELECT count(*), (
        array_agg(id ORDER BY CASE WHEN :is_forward THEN id END, id DESC)
        FILTER (
            WHERE id >= :low AND id < :high
                AND username <> ALL (CAST(:hidden AS text[])) AND username <> ALL ({DELETED_USERS})
        )
    )[1 : :limit]
    FROM (
        SELECT id, username FROM posts WHERE words @@ (SELECT CAST(:query AS tsquery)) LIMIT :most
    ) AS page
""")  # noqa: S608  what it is made of stands in post_query
ENDS = text("""
    SELECT (SELECT id FROM posts ORDER BY id LIMIT 1), (SELECT id FROM posts ORDER BY id DESC LIMIT 1)
""")
FOUND = PostQuery("""
    SELECT {columns} FROM posts AS page {content}
    WHERE page.id = ANY (CAST(:ids AS uuid[])) ORDER BY page.id DESC
""")
# Posts of instances of the last version, or of a time before there was a search.
UNINDEXED = text("""
    SELECT id, text FROM posts WHERE words IS NULL AND repost_of IS NULL AND NOT is_unlisted
    ORDER BY id DESC LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED
""")
INDEX = text("""
    UPDATE posts SET words = CAST(given.words AS tsvector)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:words AS text[])) AS given (id, words)
    WHERE posts.id = given.id
""")


class Stretch(NamedTuple):
    """The ids, as numbers, from one to another, which is not in it; forward, or backward from its end."""

    low: int
    high: int
    is_forward: bool

    @classmethod
    def of(cls, page: Page, first: int, last: int) -> Self:
        """What a page may have, of the ids from the first to the last one."""
        if page.after:
            return cls(max(page.after.int + 1, first), last + 1, is_forward=True)
        return cls(first, min(page.before.int if page.before else last + 1, last + 1), is_forward=False)

    @property
    def length(self) -> int:
        return self.high - self.low

    def begin(self, length: int) -> tuple[UUID, UUID]:
        """The ends of its first part of this length."""
        if self.is_forward:
            low, high = self.low, min(self.low + length, self.high)
        else:
            low, high = max(self.high - length, self.low), self.high
        return UUID(int=low), UUID(int=high)

    def rest(self, length: int) -> Self:
        """What follows its first part of this length."""
        if self.is_forward:
            return self._replace(low=self.low + length)
        return self._replace(high=self.high - length)


class PostSearch:
    """Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def posts(self, sought: str, page: Page, reader: str | None, hidden: Sequence[str] = ()) -> Found[Post]:
        """The posts that fit what is sought, but for unlisted ones, and those whose author is hidden."""
        found = query(sought)
        if found is None:
            return Found()
        ids = self._ids(page, {"query": found, "hidden": array_of(hidden)})
        return Found(FOUND.run(self._database, reader, {"ids": ids}), ids.seen)

    def _ids(self, page: Page, values: dict[str, Any]) -> Found[UUID]:
        in_order = IN_ORDER.rows(self._database, None, page, **values).map(itemgetter(0))
        # What is seen is read first: a post that commits meanwhile may be found twice, but is not missed.
        seen = in_order.seen or StreamLog(self._database).now()
        if len(in_order) == page.limit or not seen.is_end:
            return in_order
        late = [post_id for post_id in in_order if page.after and post_id < page.after]
        [(first, last)] = self._database.rows(ENDS, {})
        if first is None:
            return in_order
        stretch = Stretch.of(page, first.int, last.int)
        return Found([*self._ids_by_index(stretch, page.limit - len(late), values), *late], seen)

    def _ids_by_index(self, stretch: Stretch, limit: int, values: dict[str, Any]) -> list[UUID]:
        found: list[UUID] = []
        sought, whole, most = values["query"], stretch.length, MOST
        length = whole
        while len(found) < limit and stretch.length > 0:
            low, high = stretch.begin(length)
            span = {"low": low, "high": high, "is_forward": stretch.is_forward, "limit": limit}
            bounded = sought if length == whole else within(sought, low, high)
            [(count, ids)] = self._database.rows(BY_INDEX, values | span | {"query": bounded, "most": most})
            if count < most:
                found.extend(ids or ())
                stretch = stretch.rest(length)
            else:
                length = -(-length // PARTS)
                most = MOST if length > SHORTEST_TIME else ALL
        return found[:limit]

    def index_missing(self) -> bool:
        """Find the words of some posts whose words were not looked for; False when there are no more."""
        with self._database.transaction() as connection:
            found = connection.execute(UNINDEXED, {"limit": BATCH}).all()
            if found:
                ids, texts = zip(*found, strict=True)
                connection.execute(INDEX, {"ids": list(ids), "words": list(map(document, texts, ids))})
        return len(found) == BATCH
