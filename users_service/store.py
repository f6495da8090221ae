"""Users and follows in PostgreSQL."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psycopg2
from sqlalchemy import URL, BindParameter, Connection, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from common.postgres.database import Database
from users_service import errors
from users_service.models import MAX_FOLLOWEES, NewUser, OwnProfile
from users_service.tables import follows, metadata, users

MIGRATIONS = Path(__file__).parent / "migrations"

# Built once: making a statement costs more than running it.
NAME: BindParameter[str] = bindparam("name")
FOLLOWER: BindParameter[str] = bindparam("by")
FOLLOWEE: BindParameter[str] = bindparam("of")

PROFILE = select(*(users.c[field] for field in OwnProfile.model_fields)).where(users.c.username == NAME)
PASSWORD_HASH = select(users.c.password_hash).where(users.c.username == NAME)
REHASH = (
    update(users)
    .where(users.c.username == NAME, users.c.password_hash == bindparam("old"))
    .values(password_hash=bindparam("new"))
)
FOLLOW = (
    postgresql.insert(follows)
    .values(follower=FOLLOWER, followee=FOLLOWEE)
    .on_conflict_do_nothing()
    .returning(follows.c.followee)
)
UNFOLLOW = (
    delete(follows)
    .where(follows.c.follower == FOLLOWER, follows.c.followee == FOLLOWEE)
    .returning(follows.c.followee)
)
# Every change of the list updates this one row: so concurrent changes are counted exactly.
COUNT = (
    update(users)
    .where(users.c.username == NAME, users.c.followees + bindparam("change") <= MAX_FOLLOWEES)
    .values(
        followees=users.c.followees + bindparam("change"),
        followees_version=users.c.followees_version + 1,
    )
    .returning(users.c.followees)
)
VERSION = select(users.c.created_at, users.c.followees_version).where(users.c.username == NAME)
POSITION = select(follows.c.position).where(follows.c.follower == NAME, follows.c.followee == FOLLOWEE)
FOLLOWEES = (
    select(follows.c.followee)
    .where(follows.c.follower == NAME)
    .order_by(follows.c.position.desc())
    .limit(bindparam("limit"))
)
FOLLOWEES_BEFORE = FOLLOWEES.where(follows.c.position < bindparam("position"))


class UsersStore:
    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ping = database.ping
        self.close = database.close

    @classmethod
    def connect(cls, url: URL) -> Self:
        return cls(Database.connect(url, metadata))

    def prepare(self) -> None:
        self._database.prepare(MIGRATIONS)

    def register(self, user: NewUser, password_hash: str) -> OwnProfile:
        """Raises Conflict if another user has the name or the address."""
        profile = OwnProfile(**user.model_dump(exclude={"password"}), created_at=datetime.now(UTC))
        try:
            with self._database.transaction() as connection:
                connection.execute(insert(users).values(**profile.model_dump(), password_hash=password_hash))
        except IntegrityError as exc:
            if _violated_constraint(exc) == "users_email_key":
                raise errors.email_taken() from exc
            raise errors.username_taken(user.username) from exc
        return profile

    def password_hash(self, username: str) -> str | None:
        rows = self._database.rows(PASSWORD_HASH, {"name": username})
        return rows[0][0] if rows else None

    def rehash(self, username: str, old: str, new: str) -> None:
        """Replace a hash by a better one of the same password."""
        self._database.rows(REHASH, {"name": username, "old": old, "new": new})

    def profile(self, username: str) -> OwnProfile:
        return OwnProfile(**dict(zip(OwnProfile.model_fields, self._one(PROFILE, username), strict=True)))

    def follow(self, follower: str, followee: str) -> bool:
        """Whether this was new. Raises NotFound, BadRequest for oneself, Conflict beyond the limit."""
        if follower == followee:
            raise errors.cannot_follow_yourself()
        try:
            with self._database.transaction() as connection:
                is_new = connection.execute(FOLLOW, {"by": follower, "of": followee}).first() is not None
                if is_new and not _count(connection, follower, +1):
                    raise errors.too_many_followees()
                return is_new
        except IntegrityError as exc:
            if _violated_constraint(exc) == "follows_followee_fkey":
                raise errors.user_not_found(followee) from exc
            raise errors.token_of_unknown_user() from exc

    def unfollow(self, follower: str, followee: str) -> bool:
        """Whether the user followed before. Raises NotFound."""
        with self._database.transaction() as connection:
            was = connection.execute(UNFOLLOW, {"by": follower, "of": followee}).first() is not None
            if was:
                _count(connection, follower, -1)
        if not was:
            self._one(VERSION, followee)
        return was

    def followees_version(self, username: str) -> str:
        """The version of the list of followees; each change makes a new one. Raises NotFound."""
        created_at, version = self._one(VERSION, username)
        return f"{created_at.timestamp():.6f}-{version}"

    def followees(self, username: str, limit: int, before: str | None) -> list[str]:
        """Newest follow first. Raises BadRequest when `before` is not one of them."""
        values = {"name": username, "limit": limit}
        if before is None:
            return [name for (name,) in self._database.rows(FOLLOWEES, values)]
        positions = self._database.rows(POSITION, {"name": username, "of": before})
        if not positions:
            raise errors.unknown_cursor(username, before)
        values["position"] = positions[0][0]
        return [name for (name,) in self._database.rows(FOLLOWEES_BEFORE, values)]

    def _one(self, statement: Any, username: str) -> Any:
        rows = self._database.rows(statement, {"name": username})
        if not rows:
            raise errors.user_not_found(username)
        return rows[0]


def _count(connection: Connection, follower: str, change: int) -> bool:
    return connection.execute(COUNT, {"name": follower, "change": change}).first() is not None


def _violated_constraint(exc: IntegrityError) -> str | None:
    """The name of the violated constraint."""
    assert isinstance(exc.orig, psycopg2.IntegrityError)
    return exc.orig.diag.constraint_name
