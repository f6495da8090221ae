"""Revoked tokens in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, text

from common.postgres.database import Database
from common.revocations import Revocation

# Of one user at a time: one who signs out more often in one token's life ends all sessions.
MAX_REVOKED_TOKENS = 20
PAGE = 10_000
# Any number will do, as long as nothing else in the database takes it.
REVOCATION_LOCK = 0x7265766F6B65

# Revocations commit in the order of their positions: a reader that has seen one has seen all before it.
LOCK = text("SELECT pg_advisory_xact_lock(:lock)")
COUNT = text(
    "SELECT count(*) FROM revocations WHERE username = :name AND jti IS NOT NULL AND expires_at > now()"
)
# A minute more than the tokens last, because clocks differ.
REVOKE = text(
    "INSERT INTO revocations (username, jti, generation, expires_at)"
    " VALUES (:name, :jti, :generation, now() + :lifetime + interval '1 minute')"
)
NEXT_GENERATION = text(
    "UPDATE users SET token_generation = token_generation + 1 WHERE username = :name"
    " RETURNING token_generation"
)
CHANGE_PASSWORD = text(
    "UPDATE users SET password_hash = :new WHERE username = :name AND password_hash = :old RETURNING username"
)
SINCE = text(
    "SELECT position, username, jti, generation, CAST(ceil(extract(epoch FROM expires_at)) AS bigint)"
    " FROM revocations WHERE position > :position AND expires_at > now() ORDER BY position LIMIT :limit"
)
DELETE_EXPIRED = text("DELETE FROM revocations WHERE expires_at < now()")


class RevocationStore:
    """Threads may share it."""

    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database

    def revoke_token(self, username: str, jti: str, left: timedelta, lifetime: timedelta) -> None:
        """Revoke one token, which is valid for the time left; `lifetime` is that of new ones."""
        with self._database.transaction() as connection:
            take_turn(connection)
            if connection.execute(COUNT, {"name": username}).scalar_one() >= MAX_REVOKED_TOKENS:
                _revoke_all(connection, username, lifetime)
            else:
                _revoke(connection, username, jti, 0, left)

    def change_password(self, username: str, old: str, new: str, lifetime: timedelta) -> bool:
        """Replace a hash and revoke all tokens; False when the hash is not the old one any more."""
        with self._database.transaction() as connection:
            take_turn(connection)
            values = {"name": username, "old": old, "new": new}
            if connection.execute(CHANGE_PASSWORD, values).first() is None:
                return False
            _revoke_all(connection, username, lifetime)
        return True

    def revoke_all(self, username: str, lifetime: timedelta) -> bool:
        """Revoke all tokens of a user; False when there is no such user."""
        with self._database.transaction() as connection:
            take_turn(connection)
            return _revoke_all(connection, username, lifetime)

    def since(self, position: int) -> Sequence[Revocation]:
        """Those after a position that have not expired: the first ones, as many as fit in a page."""
        rows = self._database.rows(SINCE, {"position": position, "limit": PAGE})
        return [
            Revocation(position=at, username=name, jti=jti, generation=generation, expires_at=expires_at)
            for at, name, jti, generation, expires_at in rows
        ]

    def delete_expired(self) -> None:
        self._database.rows(DELETE_EXPIRED, {})


def take_turn(connection: Connection) -> None:
    """Keep other revocations from committing until this transaction has ended."""
    connection.execute(LOCK, {"lock": REVOCATION_LOCK})


def revoke_generations(connection: Connection, username: str, generation: int, lifetime: timedelta) -> None:
    """Revoke a user's tokens before this generation, none of which lives longer. Take a turn first."""
    _revoke(connection, username, None, generation, lifetime)


def _revoke_all(connection: Connection, username: str, lifetime: timedelta) -> bool:
    generation = connection.execute(NEXT_GENERATION, {"name": username}).scalar()
    if generation is None:
        return False
    revoke_generations(connection, username, generation, lifetime)
    return True


def _revoke(
    connection: Connection, username: str, jti: str | None, generation: int, lifetime: timedelta
) -> None:
    values = {"name": username, "jti": jti, "generation": generation, "lifetime": lifetime}
    connection.execute(REVOKE, values)
