"""Deletions of accounts: sagas with their state in PostgreSQL.

https://microservices.io/patterns/data/saga.html

A deletion takes the user's row away in one transaction, and leaves a tombstone
without personal data in `deletions`. `deletion_steps` has a row for each service
that has yet to confirm that it has nothing of the account any more.
"""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import text

from common.jobs.tubes import event_tube
from common.postgres.database import Database
from common.postgres.outbox import Outbox
from users_service import revocations
from users_service.events import AccountDeleted
from users_service.models import Deletion

OWN = "users"
OTHERS = ("likes", "polls", "timelines")
ASK_BATCH = 100

# The password is the one that was just compared: it may have been changed meanwhile.
DELETE_USER = text("""
    DELETE FROM users WHERE username = :name AND password_hash = :hash RETURNING token_generation
""")
BEGIN = text("""
    INSERT INTO deletions (username, requested_at, last_jti) VALUES (:name, clock_timestamp(), :jti)
    RETURNING requested_at
""")
ADD_STEPS = text("""
    INSERT INTO deletion_steps (username, service, ask_at)
    SELECT :name, service, now() + interval '1 minute' FROM unnest(CAST(:services AS text[])) AS service
""")
FIND = text("""
    SELECT
        requested_at, finished_at, last_jti,
        ARRAY(SELECT service FROM deletion_steps WHERE username = :name ORDER BY service)
    FROM deletions WHERE username = :name
""")
# The last two confirmations may come at once: the lock lets one of them see that it is the last.
LOCK = text("SELECT FROM deletions WHERE username = :name FOR NO KEY UPDATE")
CONFIRM = text("DELETE FROM deletion_steps WHERE username = :name AND service = :service")
FINISH = text("""
    UPDATE deletions SET finished_at = now()
    WHERE username = :name AND finished_at IS NULL
        AND NOT EXISTS (SELECT FROM deletion_steps WHERE username = :name)
""")
OVERDUE = text("""
    WITH overdue AS (
        SELECT username, service FROM deletion_steps WHERE service <> :own AND ask_at < now()
        ORDER BY ask_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE deletion_steps AS step
    SET attempts = attempts + 1, ask_at = now() + least(2 ^ (attempts + 1), 60) * interval '1 minute'
    FROM overdue JOIN deletions USING (username)
    WHERE (step.username, step.service) = (overdue.username, overdue.service)
    RETURNING step.username, step.service, requested_at
""")


class Found(NamedTuple):
    """A deletion, and the id of the token by which it was requested."""

    deletion: Deletion
    last_jti: str


class DeletionSaga:
    """Threads may share it, and so may instances."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    def begin(self, username: str, password_hash: str, jti: str, lifetime: timedelta) -> Deletion | None:
        """End the account, and tell the other services; None when there is none with this hash.

        `jti` is that of the token by which it is requested, `lifetime` that of tokens.
        """
        with self._database.transaction() as connection:
            revocations.take_turn(connection)
            values = {"name": username, "hash": password_hash}
            generation = connection.execute(DELETE_USER, values).scalar_one_or_none()
            if generation is None:
                return None
            revocations.revoke_generations(connection, username, generation + 1, lifetime)
            at = connection.execute(BEGIN, {"name": username, "jti": jti}).scalar_one()
            connection.execute(ADD_STEPS, {"name": username, "services": [OWN, *OTHERS]})
            for service in OTHERS:
                self._outbox.record(connection, event_tube(service), AccountDeleted(username=username, at=at))
        return _deletion(username, at, None, sorted([OWN, *OTHERS]))

    def find(self, username: str) -> Found | None:
        rows = self._database.rows(FIND, {"name": username})
        if not rows:
            return None
        [(requested_at, finished_at, last_jti, remaining)] = rows
        return Found(_deletion(username, requested_at, finished_at, remaining), last_jti)

    def confirm(self, username: str, service: str) -> None:
        """Note that a service has nothing of this account any more; once more changes nothing."""
        with self._database.transaction() as connection:
            connection.execute(LOCK, {"name": username})
            connection.execute(CONFIRM, {"name": username, "service": service})
            connection.execute(FINISH, {"name": username})

    def ask_again(self) -> None:
        """Tell some of the services that have not confirmed for long, each time later than the last."""
        with self._database.transaction() as connection:
            overdue: Any = connection.execute(OVERDUE, {"own": OWN, "limit": ASK_BATCH})
            for username, service, at in overdue.all():
                self._outbox.record(connection, event_tube(service), AccountDeleted(username=username, at=at))


def _deletion(
    username: str, requested_at: datetime, finished_at: datetime | None, remaining: list[str]
) -> Deletion:
    return Deletion(
        username=username, requested_at=requested_at, remaining=remaining, finished_at=finished_at
    )
