"""Posts found by their words, in PostgreSQL.

An index of words has no order: to show the newest posts with a common word, all
of them would have to be sorted. So it is asked for a part of the time that has a
page and not much more. How long that is, the newest posts of all say, if they do
not fill the page already; else the newest of a sample of all posts.
Decision 14 has the measurements.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import TextClause, text

from common.postgres.database import Database
from timelines_service.full_text import document, query
from timelines_service.models import Post
from timelines_service.post_query import DELETED_USERS, LAST_ID, Found, Page, PostList, PostQuery, array_of
from timelines_service.stream_log import StreamLog
from timelines_service.word_indexes import DENSE, SHORTEST_TIME, SPARSE, TIMES, times

# So many posts are looked at in about the time in which as many are found by the index, and sorted.
WINDOW = 2000
# So many of the newest posts say how far a page reaches.
ENOUGH = 3
# Fewer than so many in the denser sample, and all that there are can be sorted.
FEW = 8
BATCH = 100

# Those posts among the newest ones that fit, by the primary key.
IN_ORDER = PostList(
    """
    SELECT {first} page.id
    FROM (
        SELECT id, username, words FROM posts WHERE id {past} :cursor ORDER BY id {order} LIMIT :window
    ) AS page
    WHERE page.words @@ CAST(:query AS tsquery) AND page.username <> ALL (CAST(:hidden AS text[]))
        AND page.username <> ALL ({deleted_users})
    ORDER BY page.id {order} LIMIT :limit
    """,
    deleted_users=DELETED_USERS,
)


# The subselects hide the query and the times from the planner. It would multiply the frequencies of words,
# and read the whole table for two common ones.
WORDS = "words @@ (SELECT CAST(:query AS tsquery))"
WITHIN = f"{TIMES} && (SELECT CAST(:times AS text[]))"
SAMPLED = text(f"SELECT id FROM posts WHERE {WORDS} AND {DENSE} LIMIT :few")  # noqa: S608  likewise
# Where all posts begin and end, and whether a page may have posts that are not among the newest. Half as many
# are sure to have been among them, even if some are deleted meanwhile.
ENDS = text("""
    SELECT (SELECT id FROM posts ORDER BY id LIMIT 1), (SELECT id FROM posts ORDER BY id DESC LIMIT 1),
        EXISTS (SELECT FROM posts WHERE id >= :low AND id < :high OFFSET :window / 2)
""")


def by_index(*conditions: str) -> TextClause:
    """Those posts of a stretch of ids that fit, the nearest first. OFFSET 0: not by the primary key."""
    return text(f"""
        SELECT id
        FROM (SELECT id, username FROM posts WHERE {" AND ".join(conditions)} OFFSET 0) AS found
        WHERE id >= :low AND id < :high
            AND username <> ALL (CAST(:hidden AS text[])) AND username <> ALL ({DELETED_USERS})
        ORDER BY CASE WHEN :is_forward THEN id END, id DESC LIMIT :limit
    """)  # noqa: S608  what it is made of stands above


OF_ALL, OF_SOME_TIME = by_index(WORDS), by_index(WORDS, WITHIN)
OF_SAMPLES = [by_index(WORDS, WITHIN, sample) for sample in (SPARSE, DENSE)]
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
    def of(cls, page: Page) -> Self:
        """What a page may have."""
        if page.after:
            return cls(page.after.int + 1, LAST_ID.int, is_forward=True)
        return cls(0, (page.before or LAST_ID).int, is_forward=False)

    def between(self, first: UUID, last: UUID) -> Self:
        """Its part from the first to the last of all posts."""
        return self._replace(low=max(self.low, first.int), high=min(self.high, last.int + 1))

    def until(self, end: int) -> Self:
        """Its first part, which ends with this id."""
        return self._replace(high=end + 1) if self.is_forward else self._replace(low=end)

    def reach(self, found: Sequence[UUID], wanted: int) -> Self:
        """Its first part with as many as wanted, twice as long to be sure, if more are like these."""
        far = max(found).int - self.low if self.is_forward else self.high - min(found).int
        length = max(2 * far * wanted // len(found), SHORTEST_TIME)
        if self.is_forward:
            return self.until(min(self.low + length, self.high - 1))
        return self.until(max(self.high - length, self.low))

    def next_page(self, limit: int) -> Page:
        """A page of what follows it."""
        if self.is_forward:
            return Page(limit, after=UUID(int=self.high - 1))
        return Page(limit, before=UUID(int=self.low))

    def values(self) -> dict[str, Any]:
        return {"low": UUID(int=self.low), "high": UUID(int=self.high), "is_forward": self.is_forward}


class PostSearch:
    """Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def posts(self, sought: str, page: Page, reader: str | None, hidden: Sequence[str] = ()) -> Found[Post]:
        """The posts that fit what is sought, but for unlisted ones, and those whose author is hidden."""
        found = query(sought)
        if found is None:
            return Found()
        ids = self._ids(page, {"query": found, "hidden": array_of(hidden), "window": WINDOW})
        return Found(FOUND.run(self._database, reader, {"ids": ids}), ids.seen)

    def _ids(self, page: Page, values: dict[str, Any]) -> Found[UUID]:
        nearest = self._in_order(page, values)
        # What is seen is read first: a post that commits meanwhile may be found twice, but is not missed.
        seen = nearest.seen or StreamLog(self._database).now()
        if len(nearest) == page.limit or not seen.is_end:
            return nearest
        late = [post_id for post_id in nearest if page.after and post_id < page.after]
        recent = nearest[: len(nearest) - len(late)]
        found = self._by_index(page._replace(limit=page.limit - len(late)), recent, values)
        return Found([*found, *late], seen)

    def _in_order(self, page: Page, values: dict[str, Any]) -> Found[UUID]:
        return IN_ORDER.rows(self._database, None, page, **values).map(itemgetter(0))

    def _by_index(self, page: Page, recent: list[UUID], values: dict[str, Any]) -> list[UUID]:
        """The nearest ones, where these few are all that are found among the newest posts."""
        whole = Stretch.of(page)
        if len(self._database.rows(SAMPLED, values | {"few": FEW})) < FEW:
            return self._nearest(OF_ALL, values | whole.values() | {"limit": page.limit})
        [(first, last, is_more)] = self._database.rows(ENDS, values | whole.values())
        if not is_more:
            return recent
        whole = whole.between(first, last)
        near = self._near(whole, recent, page.limit, values)
        found = self._within(near, page.limit, values)
        wanted = page.limit - len(found)
        return found if not wanted or near == whole else found + self._next(near.next_page(wanted), values)

    def _near(self, whole: Stretch, recent: list[UUID], wanted: int, values: dict[str, Any]) -> Stretch:
        """The first part of a stretch that may have as many as wanted, and not many more."""
        if len(recent) >= ENOUGH:
            return whole.reach(recent, wanted)
        near = whole
        for sample in OF_SAMPLES:
            for nearest in self._within(near, 1, values, sample):
                near = near.until(nearest.int)
        return near

    def _next(self, page: Page, values: dict[str, Any]) -> list[UUID]:
        recent = self._in_order(page, values)
        return recent if len(recent) == page.limit else self._by_index(page, recent, values)

    def _within(
        self, near: Stretch, limit: int, values: dict[str, Any], statement: TextClause = OF_SOME_TIME
    ) -> list[UUID]:
        asked = {"limit": limit, "times": array_of(times(near.low, near.high))}
        return self._nearest(statement, values | near.values() | asked)

    def _nearest(self, statement: TextClause, values: dict[str, Any]) -> list[UUID]:
        return [post_id for (post_id,) in self._database.rows(statement, values)]

    def index_missing(self) -> bool:
        """Find the words of some posts whose words were not looked for; False when there are no more."""
        with self._database.transaction() as connection:
            found = connection.execute(UNINDEXED, {"limit": BATCH}).all()
            if found:
                ids, texts = zip(*found, strict=True)
                connection.execute(INDEX, {"ids": list(ids), "words": list(map(document, texts, ids))})
        return len(found) == BATCH
