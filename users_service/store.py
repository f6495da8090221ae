"""Accounts and profiles in PostgreSQL."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import UUID

import psycopg2
from sqlalchemy import (
    ARRAY,
    URL,
    BindParameter,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from common.fields import new_id
from common.postgres.database import Database
from common.postgres.outbox import Outbox
from common.words import words
from users_service import errors
from users_service.deletion_saga import DeletionSaga
from users_service.models import NewUser, OwnProfile, Profile, ProfileChanges, ProfileForOther
from users_service.relations import RELATIONSHIP, Relations, relationship
from users_service.revocations import CHANGE_PASSWORD, RevocationStore
from users_service.search import Search
from users_service.sweep import Sweep
from users_service.tables import metadata, outbox, user_words, users

ProfileModel = TypeVar("ProfileModel", bound=Profile)

MIGRATIONS = Path(__file__).parent / "migrations"

# Built once: making a statement costs more than running it.
NAME: BindParameter[str] = bindparam("name")

# What deleted users have of a count until it is swept away. A scalar subquery: no plan can start from all
# of a user's followers.
UNSWEPT = """(
    SELECT count((SELECT true FROM follows WHERE {follow}))
    FROM deletion_steps AS gone WHERE gone.service = 'users'
)"""
UNSWEPT_FOLLOWERS, UNSWEPT_FOLLOWEES = (
    literal_column(UNSWEPT.format(follow=follow), Integer)
    for follow in (
        "follower = gone.username AND followee = users.username",
        "follower = users.username AND followee = gone.username",
    )
)

# A field of a profile that is no column of the same name.
COMPUTED: Mapping[str, ColumnElement[Any]] = {
    "display_name": func.coalesce(users.c.display_name, users.c.username),
    "followers_count": users.c.followers - UNSWEPT_FOLLOWERS,
    "followees_count": users.c.followees - UNSWEPT_FOLLOWEES,
}


def _columns(model: type[Profile]) -> Iterator[ColumnElement[Any]]:
    return (COMPUTED[field] if field in COMPUTED else users.c[field] for field in model.model_fields)


REGISTER = insert(users).returning(*_columns(OwnProfile))
PROFILE = select(*_columns(OwnProfile)).where(users.c.username == NAME)
PUBLIC_PROFILE = select(*_columns(Profile)).where(users.c.username == NAME)
PROFILE_FOR_OTHER = select(*_columns(Profile), text(RELATIONSHIP)).where(users.c.username == NAME)
PROFILES = select(*_columns(Profile)).where(
    or_(
        users.c.username == any_(cast(bindparam("names"), ARRAY(Text))),
        users.c.id == any_(cast(bindparam("ids"), ARRAY(Uuid))),
    )
)
CHANGE = update(users).where(users.c.username == NAME).returning(users.c.username)
FORGET_WORDS = delete(user_words).where(user_words.c.username == NAME)
CREDENTIALS = select(users.c.password_hash, users.c.token_generation).where(users.c.username == NAME)


class UsersStore:
    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database
        self.relations = relations = Relations(database)
        self.search = Search(database)
        self.revocations = RevocationStore(database)
        self.outbox = Outbox(database, outbox)
        self.deletions = DeletionSaga(database, self.outbox)
        self.sweep = Sweep(database)
        self.follow, self.unfollow = relations.follow, relations.unfollow
        self.followees, self.followees_version = relations.followees, relations.followees_version
        self.ping = database.ping
        self.close = database.close
        self.replica = database.replica

    @classmethod
    def connect(cls, url: URL, replica_url: URL | None = None) -> Self:
        return cls(Database.connect(url, metadata, replica_url))

    def prepare(self) -> None:
        self._database.prepare(MIGRATIONS)

    def register(self, user: NewUser, password_hash: str) -> OwnProfile:
        """Raises Conflict if another user has the name or the address."""
        values = user.model_dump(exclude={"password"})
        values |= {"password_hash": password_hash, "id": new_id(), "created_at": datetime.now(UTC)}
        try:
            with self._database.transaction() as connection:
                return _read(OwnProfile, connection.execute(REGISTER, values).one())
        except IntegrityError as exc:
            if _violated_constraint(exc) == "users_email_key":
                raise errors.email_taken() from exc
            raise errors.username_taken(user.username) from exc

    def credentials(self, username: str) -> tuple[str | None, int]:
        """The hash of the password, None for an unknown user, and the generation of the user's tokens."""
        rows = self._database.rows(CREDENTIALS, {"name": username})
        return rows[0] if rows else (None, 0)

    def rehash(self, username: str, old: str, new: str) -> None:
        """Replace a hash by a better one of the same password."""
        self._database.rows(CHANGE_PASSWORD, {"name": username, "old": old, "new": new})

    def profile(self, username: str) -> OwnProfile:
        """Raises NotFound."""
        return _read(OwnProfile, self._profile(PROFILE, name=username))

    def public_profile(self, username: str) -> Profile:
        """Raises NotFound."""
        return _read(Profile, self._profile(PUBLIC_PROFILE, name=username))

    def profile_for_other(self, username: str, reader: str) -> ProfileForOther:
        """What this reader sees of another user. Raises NotFound."""
        return read_for_other(self._profile(PROFILE_FOR_OTHER, name=username, reader=reader))

    def _profile(self, statement: Executable, **values: str) -> Sequence[object]:
        rows = self._database.rows(statement, values)
        if not rows:
            raise errors.user_not_found(values["name"])
        row: Sequence[object] = rows[0]
        return row

    def profiles(self, usernames: Sequence[str], ids: Sequence[UUID]) -> list[Profile]:
        """Those of users who exist: first by their names, then by their ids, in the order given."""
        values = {"names": list(usernames), "ids": [str(one) for one in ids]}
        found = [_read(Profile, row) for row in self._database.rows(PROFILES, values)]
        by_key = {str(key): profile for profile in found for key in (profile.username, profile.id)}
        named = (by_key.get(str(key)) for key in (*usernames, *ids))
        return list({profile.id: profile for profile in named if profile}.values())

    def change(self, username: str, changes: ProfileChanges) -> OwnProfile:
        """Raises NotFound, Conflict when another user has the address."""
        values = changes.columns()
        try:
            with self._database.transaction() as connection:
                if values and connection.execute(CHANGE.values(values), {"name": username}).first() is None:
                    raise errors.user_not_found(username)
                if "display_name" in values:
                    _index(connection, username, f"{username} {values['display_name'] or ''}")
        except IntegrityError as exc:
            raise errors.email_taken() from exc
        return self.profile(username)


def _read(model: type[ProfileModel], row: Sequence[object]) -> ProfileModel:
    return model.model_validate(dict(zip(model.model_fields, row, strict=True)))


def read_for_other(row: Sequence[object]) -> ProfileForOther:
    """A row of PROFILE_FOR_OTHER."""
    public = len(Profile.model_fields)
    return _read(ProfileForOther, [*row[:public], relationship(row[public:])])


def _index(connection: Connection, username: str, text: str) -> None:
    """Let the user be found by the words of this text."""
    connection.execute(FORGET_WORDS, {"name": username})
    found = [{"username": username, "word": word} for word in dict.fromkeys(words(text))]
    if found:
        connection.execute(insert(user_words), found)


def _violated_constraint(exc: IntegrityError) -> str | None:
    """The name of the violated constraint."""
    assert isinstance(exc.orig, psycopg2.IntegrityError)
    return exc.orig.diag.constraint_name
