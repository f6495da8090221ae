"""The log of what streams bring: read in the order of commits, and from any place in it.

The ids of a log are made before the commit, so "greater than the last id" can
miss an event. Here a reader knows the transactions that it has seen, as
PostgreSQL's snapshots have them: what it reads next is what has committed since,
however long ago it began.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy import text

from common.postgres.database import Database
from timelines_service.batches import delete_batch

# How far back a stream can be resumed. Rows are kept for longer: the transaction that wrote one may have
# taken a while, and a stream that is resumed takes a moment to read.
RESUME_SECONDS = 15 * 60
KEEP_SECONDS = RESUME_SECONDS + 60
DELETE_BATCH = 10_000
PAGE = 500

LAST_NUMBER = 2**63 - 1
NUMBER = r"(\d{1,19})"
SEEN = r"(\d{1,19}(?:,\d{1,19})*)"
# In a URL. The transactions that run at once are in it, twice: hundreds of them have room.
MAX_POSITION = 4000
POSITION = re.compile(f"{NUMBER}-{SEEN}-{SEEN}-{NUMBER}-{NUMBER}", re.ASCII)

FIELDS = "xid, id, kind, item_id, username, repost_of, original_author, tags, is_unlisted, recipient"
# What a snapshot has not seen: transactions that began later, and those that were running then. The least of
# them is a bound of its own, from which the primary key is read.
UNSEEN = f"""
    SELECT {FIELDS} FROM stream_events
    WHERE (xid >= :next_xid OR xid = ANY (CAST(:running AS bigint[]))) AND (xid, id) > (:xid, :id)
"""  # noqa: S608  names of our own
NEWS = text(f"""
    SELECT CAST(pg_current_snapshot() AS text), CAST(extract(epoch FROM now()) AS bigint), event.*
    FROM (SELECT) AS one LEFT JOIN ({UNSEEN} ORDER BY xid, id LIMIT :limit) AS event ON true
    ORDER BY xid, id
""")  # noqa: S608  likewise
WITHIN = f"{UNSEEN} AND xid < :until AND xid <> ALL (CAST(:still_running AS bigint[]))"
PART = text(f"{WITHIN} ORDER BY xid, id LIMIT :limit")
LATE = text(f"{WITHIN} AND kind = 'post' AND item_id < :cursor ORDER BY xid, id LIMIT :limit")
DELETE_OLD = delete_batch("stream_events", "created_at < now() - make_interval(secs => :seconds)")


class Snapshot(NamedTuple):
    """The transactions that had ended at some moment: those before `next_xid`, without the `running` ones."""

    next_xid: int
    running: tuple[int, ...] = ()

    @classmethod
    def from_postgres(cls, written: str) -> Self:
        """Of `xmin:xmax:running`, as PostgreSQL has it."""
        _, next_xid, running = written.split(":")
        return cls(int(next_xid), tuple(map(int, filter(None, running.split(",")))))

    @classmethod
    def parse(cls, written: str) -> Self:
        next_xid, *running = map(int, written.split(","))
        return cls(next_xid, tuple(running))

    def __str__(self) -> str:
        return ",".join(map(str, (self.next_xid, *self.running)))


class Position(NamedTuple):
    """A place in the log: after all that was committed `before`, and after one event of what was `within`.

    `at` is when `within` was, in Unix time.
    """

    at: int
    before: Snapshot
    within: Snapshot
    xid: int = 0
    number: int = 0

    @classmethod
    def parse(cls, written: str) -> Self | None:
        """The position of an event's id; None for what is none."""
        found = POSITION.fullmatch(written)
        if found is None or max(map(int, re.split("[-,]", written))) > LAST_NUMBER:
            return None
        at, before, within, xid, number = found.groups()
        return cls(int(at), Snapshot.parse(before), Snapshot.parse(within), int(xid), int(number))

    def __str__(self) -> str:
        return f"{self.at}-{self.before}-{self.within}-{self.xid}-{self.number}"

    @property
    def is_end(self) -> bool:
        """Whether nothing is between the two snapshots: all that it is within comes before it."""
        return self.before == self.within

    def at_end(self) -> Self:
        """The place after all of what it is within."""
        return type(self)(self.at, self.within, self.within)

    def followed_by(self, later: Self) -> Self:
        """The place where those begin that `later` has seen, and this one has not."""
        return later._replace(before=self.within)

    def is_lost(self, now: Self) -> bool:
        """Whether events that came after it may be deleted by now, or are another database's."""
        return now.at - self.at > RESUME_SECONDS or self.within.next_xid > now.within.next_xid


@dataclass(slots=True)
class LogEvent:
    """One row of the log: what has happened to a post, or a notification."""

    position: Position
    kind: str
    item_id: UUID
    username: str
    repost_of: UUID | None
    original_author: str | None
    tags: Sequence[str]
    is_unlisted: bool
    recipient: str | None


class LogPage(NamedTuple):
    """Events in the order of the log, and where the next page begins if there is one."""

    events: list[LogEvent]
    rest: Position | None


class StreamLog:
    """Reads the log. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def now(self) -> Position:
        """The end of the log."""
        return self.since(Snapshot(LAST_NUMBER))[1]

    def since(self, seen: Snapshot) -> tuple[LogPage, Position]:
        """The first page of what a snapshot has not seen, and the end of the log."""
        rows = self._database.rows(NEWS, _values(Position(0, seen, seen)))
        written, at = rows[0][:2]
        within = Snapshot.from_postgres(written)
        events = [row[2:] for row in rows if row[2] is not None]
        return _page(Position(at, seen, within), events), Position(at, within, within)

    def after(self, position: Position) -> LogPage:
        """The next page of what a position is within."""
        return _page(position, self._database.rows(PART, _values(position)))

    def late(self, position: Position, cursor: UUID) -> LogPage:
        """The same of new posts alone, whose ids are before a cursor."""
        return _page(position, self._database.rows(LATE, _values(position) | {"cursor": cursor}))

    def delete_old(self) -> None:
        """Delete some of what no stream can be resumed from any more."""
        self._database.rows(DELETE_OLD, {"seconds": KEEP_SECONDS, "limit": DELETE_BATCH})


def _values(position: Position) -> dict[str, Any]:
    seen = position.before
    least = min((seen.next_xid, *seen.running))
    xid, number = max((position.xid, position.number), (least, 0))
    return {
        "next_xid": seen.next_xid,
        "running": list(seen.running),
        "until": position.within.next_xid,
        "still_running": list(position.within.running),
        "xid": xid,
        "id": number,
        "limit": PAGE,
    }


def _page(position: Position, rows: Sequence[Sequence[Any]]) -> LogPage:
    events = [LogEvent(position._replace(xid=xid, number=number), *rest) for xid, number, *rest in rows]
    return LogPage(events, events[-1].position if len(events) == PAGE else None)
