"""What a deleted account leaves here: follows, blocks and mutes, swept away in batches.

Since the user's row is gone, no new one can come: all that make one lock that row.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import TextClause, text

from common.postgres.database import Database

# An account may have half a million followers. One batch locks their rows for some ten milliseconds.
BATCH = 100
# What one search finds: each one has to pass the index entries of what was deleted before.
FOUND_AT_ONCE = 5000

UNSWEPT = text("SELECT username FROM deletion_steps WHERE service = 'users' ORDER BY ask_at LIMIT 100")
# So that two instances do not sweep after one account.
TAKE = text("""
    SELECT username FROM deletion_steps WHERE service = 'users' AND username = :name FOR UPDATE SKIP LOCKED
""")
# In the order in which a follow locks them, so that the two cannot deadlock.
LOCK = text("SELECT FROM users WHERE username = ANY (:others) ORDER BY username FOR NO KEY UPDATE")


class Part(NamedTuple):
    """One kind of what is left: the others' names, and how it goes."""

    find: TextClause
    delete: TextClause


def _part(table: str, mine: str, other: str, change: str = "") -> Part:
    """Rows that have the account as `mine`; `change` is what becomes of the other users' rows."""
    # ruff: noqa: S608  what they are made of stands here
    delete = f"DELETE FROM {table} WHERE {mine} = :name AND {other} = ANY (:others)"
    if change:
        delete = f"""
            WITH gone AS ({delete} RETURNING {other} AS other)
            UPDATE users SET {change} FROM gone WHERE username = other
        """
    return Part(text(f"SELECT {other} FROM {table} WHERE {mine} = :name LIMIT :limit"), text(delete))


HOME_CHANGES = "followees_version = followees_version + 1"
PARTS = (
    _part("follows", "follower", "followee"),
    _part("follows", "followee", "follower", f"followees = followees - 1, {HOME_CHANGES}"),
    _part("blocks", "owner", "subject", HOME_CHANGES),
    _part("blocks", "subject", "owner", HOME_CHANGES),
    _part("mutes", "owner", "subject"),
    _part("mutes", "subject", "owner", HOME_CHANGES),
)


class Sweep:
    """Threads may share it, and so may instances."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def usernames(self) -> list[str]:
        """Some deleted accounts of which something may be left here."""
        return [name for (name,) in self._database.rows(UNSWEPT, {})]

    def run(self, username: str, seconds: float) -> bool:
        """Delete, for about so long, what an account left; whether nothing is left."""
        until = time.monotonic() + seconds
        for part, others in self._batches(username):
            if time.monotonic() > until or not self._delete(part, username, others):
                return False
        return True

    def _batches(self, username: str) -> Iterator[tuple[Part, list[str]]]:
        for part in PARTS:
            while names := self._database.rows(part.find, {"name": username, "limit": FOUND_AT_ONCE}):
                for start in range(0, len(names), BATCH):
                    yield part, [name for (name,) in names[start : start + BATCH]]

    def _delete(self, part: Part, username: str, others: Sequence[str]) -> bool:
        """False when another instance is at it."""
        values = {"name": username, "others": list(others)}
        with self._database.transaction() as connection:
            if connection.execute(TAKE, values).first() is None:
                return False
            connection.execute(LOCK, values)
            connection.execute(part.delete, values)
        return True
