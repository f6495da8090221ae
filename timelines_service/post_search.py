"""Posts found by their words, in PostgreSQL.

An index of words has no order: to show the newest posts with a common word, all
of them would have to be sorted. So the newest posts of all are looked at first;
they fill a page if the words are common, or say how far it reaches. Else the
index is asked, for shorter times until few enough posts of each have the words.
Decision 14 has the measurements.
"""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import text

from common.postgres.database import Database
from timelines_service.full_text import SHORTEST_TIME, document, query, times
from timelines_service.models import Post
from timelines_service.post_query import DELETED_USERS, Found, Page, PostList, PostQuery, array_of
from timelines_service.stream_log import StreamLog

# So many posts are looked at in about the time in which so many are found by the index, and sorted.
WINDOW = 2000
MOST = 2000
# Where more posts are found, it is looked for them in so many shorter times instead.
PARTS = 64
# So many of the newest posts say how far a page reaches; fewer may be all that there are.
ENOUGH = 3
# No limit, for a time that is too short to be divided.
ALL = 2**62
BATCH = 100


def in_order(window: int) -> PostList:
    """Those posts among the newest ones that fit, by the primary key."""
    return PostList(
        """
        SELECT {first} page.id
        FROM (
            SELECT id, username, words FROM posts WHERE id {past} :cursor ORDER BY id {order} LIMIT {window}
        ) AS page
        WHERE page.words @@ CAST(:query AS tsquery) AND page.username <> ALL (CAST(:hidden AS text[]))
            AND page.username <> ALL ({deleted_users})
        ORDER BY page.id {order} LIMIT :limit
        """,
        window=str(window),
        deleted_users=DELETED_USERS,
    )


IN_ORDER = in_order(WINDOW)
# The subselect hides the query from the planner, which would multiply the frequencies of its words, and read
# the whole table for two common ones. The times are a condition of their own: the index then leaps from what
# one of the two finds to what the other does, in both of which nothing may be for long.
BY_INDEX = f"""
    SELECT count(*), (
        array_agg(id ORDER BY CASE WHEN :is_forward THEN id END, id DESC)
        FILTER (
            WHERE id >= :low AND id < :high
                AND username <> ALL (CAST(:hidden AS text[])) AND username <> ALL ({DELETED_USERS})
        )
    )[1 : :limit]
    FROM (
        SELECT id, username FROM posts WHERE words @@ (SELECT CAST(:query AS tsquery)) {{times}} LIMIT :most
    ) AS page
"""  # noqa: S608  what it is made of stands in post_query
OF_ALL, OF_SOME_TIME = (
    text(BY_INDEX.format(times=times)) for times in ("", "AND words @@ (SELECT CAST(:times AS tsquery))")
)
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

    def reach(self, found: Sequence[UUID], wanted: int) -> int:
        """How far one has to look, twice as far to be sure, for as many as wanted, if more are like these."""
        far = max(found).int - self.low if self.is_forward else self.high - min(found).int
        return max(2 * far * wanted // len(found), SHORTEST_TIME)

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
        nearest = IN_ORDER.rows(self._database, None, page, **values).map(itemgetter(0))
        # What is seen is read first: a post that commits meanwhile may be found twice, but is not missed.
        seen = nearest.seen or StreamLog(self._database).now()
        if len(nearest) == page.limit or not seen.is_end:
            return nearest
        late = [post_id for post_id in nearest if page.after and post_id < page.after]
        [(first, last)] = self._database.rows(ENDS, {})
        if first is None:
            return nearest
        stretch, wanted = Stretch.of(page, first.int, last.int), page.limit - len(late)
        recent = nearest[: len(nearest) - len(late)]
        reach = stretch.reach(recent, wanted) if len(recent) >= ENOUGH else 0
        return Found([*self._ids_by_index(stretch, wanted, values, reach), *late], seen)

    def _ids_by_index(
        self, stretch: Stretch, limit: int, values: dict[str, Any], reach: int = 0
    ) -> list[UUID]:
        """The first ones: looked for within reach, if that is known, and then in all."""
        found: list[UUID] = []
        length, statement = (reach, OF_SOME_TIME) if reach else (stretch.length, OF_ALL)
        while len(found) < limit and stretch.length > 0:
            low, high = stretch.begin(length)
            span = {"low": low, "high": high, "is_forward": stretch.is_forward, "limit": limit}
            most = MOST if statement is OF_ALL or length > SHORTEST_TIME else ALL
            asked = values | span | {"times": times(low, high), "most": most}
            [(count, ids)] = self._database.rows(statement, asked)
            if count < most:
                found.extend(ids or ())
                stretch = stretch.rest(length)
                if length == reach:
                    length, statement = stretch.length, OF_ALL
            else:
                length, statement = max(-(-length // PARTS), SHORTEST_TIME), OF_SOME_TIME
        return found[:limit]

    def index_missing(self) -> bool:
        """Find the words of some posts whose words were not looked for; False when there are no more."""
        with self._database.transaction() as connection:
            found = connection.execute(UNINDEXED, {"limit": BATCH}).all()
            if found:
                ids, texts = zip(*found, strict=True)
                connection.execute(INDEX, {"ids": list(ids), "words": list(map(document, texts, ids))})
        return len(found) == BATCH
