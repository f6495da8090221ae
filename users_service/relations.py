"""Who follows, blocks and mutes whom, in PostgreSQL.

A change of a pair locks both users first, in the order of their names: users
who follow or block each other at once cannot deadlock. The triggers of
migration 0002 do so for instances of the last version, keep the counts of
followers, and refuse a follow that a block forbids.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg2
from sqlalchemy import BindParameter, ColumnElement, Connection, Table, bindparam, delete, func, select, text
from sqlalchemy.dialects import postgresql

from common.jobs.tubes import event_tube
from common.postgres.database import Database
from common.postgres.outbox import cause
from users_service import errors
from users_service.models import MAX_FOLLOWEES, MAX_MARKS, HomeSources, NamedRelationship, Relationship
from users_service.tables import blocks, follows, mutes, users

TIMELINES_TUBE = event_tube("timelines")

# Built once: making a statement costs more than running it.
NAME: BindParameter[str] = bindparam("name")
OTHER: BindParameter[str] = bindparam("other")

VERSION = select(users.c.created_at, users.c.followees_version).where(users.c.username == NAME)
VERSIONS = text("SELECT username, created_at, followees_version FROM users WHERE username = ANY (:names)")

# Single statements, so that a popular user is locked for a moment only. `pair` reads what the lock has waited
# for, where the rest of a statement sees what was there before: hence the limit is compared with it.
# ruff: noqa: S608  what they are made of stands here
PAIR = """
    WITH pair AS MATERIALIZED (
        SELECT username, followees FROM users WHERE username IN (:name, :other)
        ORDER BY username FOR NO KEY UPDATE
    )
"""
# A change of follows, as the timelines service learns of it. The server gives the time, and after the lock:
# the times of two changes of one pair are in the order of the changes.
TELL = """INSERT INTO users_outbox (tube, payload, request_id, traceparent)
        SELECT
            :tube,
            jsonb_build_object(
                'kind', '{kind}', 'follower', follower, 'followee', followee, 'at', clock_timestamp()
            ),
            :request_id, :traceparent
        FROM {changes}"""
OUTCOME = """
    SELECT
        ARRAY(SELECT username FROM pair),
        EXISTS (SELECT FROM changed),
        (SELECT followees FROM pair WHERE username = :name)
"""
FOLLOW = text(f"""{PAIR}, changed AS (
        INSERT INTO follows (follower, followee)
        SELECT username, :other FROM pair
        WHERE username = :name AND followees < :most AND (SELECT count(*) FROM pair) = 2
        ON CONFLICT DO NOTHING
        RETURNING follower, followee
    ), counted AS (
        UPDATE users SET followees = users.followees + 1, followees_version = followees_version + 1
        FROM changed WHERE username = follower
    ), told AS ({TELL.format(kind="followed", changes="changed")}) {OUTCOME}""")
UNFOLLOW = text(f"""{PAIR}, changed AS (
        DELETE FROM follows
        WHERE follower = :name AND followee = :other AND (SELECT count(*) FROM pair) = 2
        RETURNING follower, followee
    ), counted AS (
        UPDATE users SET followees = users.followees - 1, followees_version = followees_version + 1
        FROM changed WHERE username = follower
    ), told AS ({TELL.format(kind="unfollowed", changes="changed")}) {OUTCOME}""")
LOCK = text(f"{PAIR} SELECT username FROM pair")
END_FOLLOWS = text(f"""
    WITH ended AS (
        DELETE FROM follows
        WHERE (follower, followee) IN ((:name, :other), (:other, :name)) RETURNING follower, followee
    ), told AS ({TELL.format(kind="unfollowed", changes="ended")})
    UPDATE users SET followees = followees - (SELECT count(*) FROM ended WHERE follower = username)
    WHERE username IN (:name, :other)
""")
CHANGE_VERSIONS = text(
    "UPDATE users SET followees_version = followees_version + 1 WHERE username = ANY (:names)"
)

# The fields of Relationship, in a statement that reads users. Not EXISTS, for which the planner weighs a plan
# more each, longer than the probes take.
RELATIONSHIP = """
    (SELECT true FROM follows WHERE follower = :reader AND followee = users.username) IS TRUE,
    (SELECT true FROM follows WHERE follower = users.username AND followee = :reader) IS TRUE,
    (SELECT true FROM blocks WHERE owner = :reader AND subject = users.username) IS TRUE,
    (SELECT true FROM mutes WHERE owner = :reader AND subject = users.username) IS TRUE
"""
RELATIONSHIPS = text(f"SELECT username, {RELATIONSHIP} FROM users WHERE username = ANY (:others)")
HOME_SOURCES = text("""
    SELECT
        ARRAY(SELECT followee FROM follows WHERE follower = :name ORDER BY position DESC),
        ARRAY(
            SELECT subject FROM mutes WHERE owner = :name
            UNION SELECT subject FROM blocks WHERE owner = :name
            UNION SELECT owner FROM blocks WHERE subject = :name
        ),
        ARRAY(
            SELECT subject FROM blocks WHERE owner = :name
            UNION SELECT owner FROM blocks WHERE subject = :name
        )
""")

# The largest bigint: the page before it is the first one.
NEWER_THAN_ALL = 2**63 - 1


# Read once a statement, and empty but while a sweep goes on.
IS_LISTED = "{name} <> ALL (ARRAY(SELECT username FROM deletion_steps WHERE service = 'users'))"


class Listed(NamedTuple):
    """A name in a list, and its position there: greater for a newer one, and never given again."""

    name: str
    position: int


class Page(NamedTuple):
    """Which part of a list of names: at most `limit`, next to a cursor if there is one.

    With the position that the cursor had, it need not be there any more, nor at that place.
    """

    limit: int
    before: str | None = None
    after: str | None = None
    position: int | None = None

    @property
    def cursor(self) -> str | None:
        return self.after or self.before


class NameList:
    """A list of names that a user has, newest first. `absent` says that a name is not in it."""

    def __init__(
        self, user: ColumnElement[str], listed: ColumnElement[str], position: Any, absent: str
    ) -> None:
        bound: BindParameter[int] = bindparam("position")
        is_listed = text(IS_LISTED.format(name=listed))
        mine = select(listed, position).where(user == NAME, is_listed).limit(bindparam("limit"))
        self.cursor = select(position).where(user == NAME, listed == OTHER)
        self.before = mine.where(position < bound).order_by(position.desc())
        self.after = mine.where(position > bound).order_by(position)
        self.absent = absent


FOLLOWEES = NameList(
    follows.c.follower, follows.c.followee, follows.c.position, "{user} does not follow {other} any more."
)
FOLLOWERS = NameList(
    follows.c.followee, follows.c.follower, follows.c.position, "{other} does not follow {user} any more."
)


class Mark:
    """A kind of mark that a user sets on another; `is_mutual` when it concerns the other one, too."""

    def __init__(self, table: Table, verb: str, is_mutual: bool) -> None:
        self.table = table
        self.verb = verb
        self.is_mutual = is_mutual
        absent = f"{{user}} does not {verb} {{other}} any more."
        self.names = NameList(table.c.owner, table.c.subject, table.c.position, absent)


BLOCK = Mark(blocks, "block", is_mutual=True)
MUTE = Mark(mutes, "mute", is_mutual=False)


class Relations:
    """Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def follow(self, follower: str, followee: str) -> bool:
        """Whether this was new.

        Raises NotFound, BadRequest for oneself, Forbidden when one has blocked the other, Conflict beyond the
        limit, Unauthorized when the follower does not exist.
        """
        if follower == followee:
            raise errors.cannot_mark_yourself("follow")
        try:
            found, changed, count = self._change(FOLLOW, follower, followee)
        except psycopg2.errors.CheckViolation as exc:
            raise errors.blocked() from exc
        _require_both(found, follower, followee)
        if not changed and count >= MAX_FOLLOWEES and not self._position(FOLLOWEES, follower, followee):
            raise errors.too_many_followees()
        return changed

    def unfollow(self, follower: str, followee: str) -> bool:
        """Whether the user followed before. Raises NotFound."""
        found, changed, _ = self._change(UNFOLLOW, follower, followee)
        if followee not in found:
            raise errors.user_not_found(followee)
        return changed

    def _change(self, statement: Any, name: str, other: str) -> tuple[list[str], bool, int]:
        values = {"name": name, "other": other, "most": MAX_FOLLOWEES, "tube": TIMELINES_TUBE, **cause()}
        [(found, changed, count)] = self._database.rows(statement, values)
        return found, changed, count

    def mark(self, mark: Mark, owner: str, subject: str) -> bool:
        """Whether this was new. A block ends follows both ways.

        Raises NotFound, BadRequest for oneself, Conflict beyond the limit, Unauthorized when the owner does
        not exist.
        """
        if owner == subject:
            raise errors.cannot_mark_yourself(mark.verb)
        with self._database.transaction() as connection:
            _lock(connection, owner, subject)
            new = postgresql.insert(mark.table).values(owner=owner, subject=subject).on_conflict_do_nothing()
            if connection.execute(new.returning(mark.table.c.owner)).first() is None:
                return False
            mine = select(func.count()).where(mark.table.c.owner == owner)
            if connection.execute(mine).scalar_one() > MAX_MARKS:
                raise errors.too_many_marks(mark.verb)
            if mark.is_mutual:
                pair = {"name": owner, "other": subject, "tube": TIMELINES_TUBE}
                connection.execute(END_FOLLOWS, pair | cause())
            _change_versions(connection, mark, owner, subject)
        return True

    def unmark(self, mark: Mark, owner: str, subject: str) -> bool:
        """Whether it was there. Raises NotFound, Unauthorized when the owner does not exist."""
        table = mark.table
        with self._database.transaction() as connection:
            _lock(connection, owner, subject)
            mine = delete(table).where(table.c.owner == owner, table.c.subject == subject)
            if connection.execute(mine.returning(table.c.owner)).first() is None:
                return False
            _change_versions(connection, mark, owner, subject)
        return True

    def relationships(self, username: str, others: Sequence[str]) -> list[NamedRelationship]:
        """What is between the user and those of the others who exist, in the order given."""
        rows = self._database.rows(RELATIONSHIPS, {"reader": username, "others": list(others)})
        found = {other: relationship(row) for other, *row in rows}
        return [
            NamedRelationship(username=name, **found[name].model_dump()) for name in others if name in found
        ]

    def followees_version(self, username: str) -> str:
        """The version of what a home timeline is made of; each change makes a new one. Raises NotFound."""
        return _version(*self._user(username))

    def home_versions(self, usernames: Sequence[str]) -> dict[str, str]:
        """The same of those of these users who exist."""
        rows = self._database.rows(VERSIONS, {"names": list(usernames)})
        return {username: _version(created_at, version) for username, created_at, version in rows}

    def home_sources(self, username: str, version: str) -> HomeSources:
        """What a home timeline is made of, at this version or a later one."""
        [(followees, hidden, blocked)] = self._database.rows(HOME_SOURCES, {"name": username})
        return HomeSources(followees=followees, hidden=hidden, blocked=blocked, version=version)

    def followees(self, username: str, page: Page) -> list[Listed]:
        """Newest follow first. Raises BadRequest when the cursor is not one of them, and has no position."""
        return self._names(FOLLOWEES, username, page)

    def followers(self, username: str, page: Page) -> list[Listed]:
        """As followees. Raises NotFound, too."""
        self._user(username)
        return self._names(FOLLOWERS, username, page)

    def marked(self, mark: Mark, owner: str, page: Page) -> list[Listed]:
        """As followees."""
        return self._names(mark.names, owner, page)

    def _names(self, names: NameList, username: str, page: Page) -> list[Listed]:
        position = page.position
        if position is None:
            position = self._position(names, username, page.cursor) if page.cursor else NEWER_THAN_ALL
        if position is None:
            raise errors.unknown_cursor(names.absent.format(user=username, other=page.cursor))
        values = {"name": username, "position": position, "limit": page.limit}
        rows = self._database.rows(names.after if page.after else names.before, values)
        found = [Listed(*row) for row in rows]
        return found[::-1] if page.after else found

    def _position(self, names: NameList, username: str, other: str) -> int | None:
        rows = self._database.rows(names.cursor, {"name": username, "other": other})
        return rows[0][0] if rows else None

    def _user(self, username: str) -> Any:
        rows = self._database.rows(VERSION, {"name": username})
        if not rows:
            raise errors.user_not_found(username)
        return rows[0]


def relationship(row: Sequence[object]) -> Relationship:
    """What the columns of RELATIONSHIP say."""
    return Relationship.model_validate(dict(zip(Relationship.model_fields, row, strict=True)))


def _version(created_at: datetime, changes: int) -> str:
    return f"{created_at.timestamp():.6f}-{changes}"


def _lock(connection: Connection, owner: str, subject: str) -> None:
    found = connection.execute(LOCK, {"name": owner, "other": subject}).scalars().all()
    _require_both(found, owner, subject)


def _require_both(found: Sequence[str], user: str, other: str) -> None:
    if other not in found:
        raise errors.user_not_found(other)
    if user not in found:
        raise errors.token_of_unknown_user()


def _change_versions(connection: Connection, mark: Mark, owner: str, subject: str) -> None:
    connection.execute(CHANGE_VERSIONS, {"names": [owner, subject] if mark.is_mutual else [owner]})
