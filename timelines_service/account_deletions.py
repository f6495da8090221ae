"""Deletions of accounts, as far as this service goes.

A deletion notes the user in `deleted_users`. From then on nothing of the user is
shown or stored. A worker sweeps away what is there, in batches, and then waits
until what was under way has ended; what that left it sweeps away, too. Then this
service has nothing of the account any more, and confirms it.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel
from sqlalchemy import Connection, text

from common.jobs.tubes import event_tube
from common.postgres.database import Database
from common.postgres.outbox import Outbox
from timelines_service.batches import delete_batch
from timelines_service.deletions import Deletions

USERS_TUBE = event_tube("users")

# Each takes a row from a dozen indexes; those of the other tables take fewer.
POSTS_BATCH = 100
BATCH = 1000

BEGIN = text("""
    INSERT INTO deleted_users (username, deleted_at) VALUES (:username, :at) ON CONFLICT DO NOTHING
""")
IS_CLEARED = text("SELECT cleared_at IS NOT NULL FROM deleted_users WHERE username = :username")
# A transaction that began before the user was noted has ended ten seconds later: it has less than two.
# SKIP LOCKED: two workers sweep after two users.
NEXT = text("""
    SELECT username, swept_at IS NOT NULL AS is_swept FROM deleted_users
    WHERE cleared_at IS NULL AND (swept_at IS NULL OR swept_at < now() - interval '10 seconds')
    ORDER BY deleted_at LIMIT 1 FOR UPDATE SKIP LOCKED
""")
POSTS = text("SELECT id FROM posts WHERE username = :username ORDER BY id DESC LIMIT :limit")
SWEEP = [
    delete_batch(table, f"{column} = :username")
    for table, column in (
        ("bookmarks", "username"),
        ("pins", "username"),
        ("idempotency_keys", "username"),
        ("notifications", "recipient"),
        ("notifications", "actor"),
        ("notification_reads", "recipient"),
    )
]
SWEPT = text("UPDATE deleted_users SET swept_at = now() WHERE username = :username")
CLEARED = text("UPDATE deleted_users SET cleared_at = now() WHERE username = :username")


class AccountCleared(BaseModel):
    """An event: this service has nothing of a deleted account any more."""

    kind: Literal["account_cleared"] = "account_cleared"
    username: str
    service: Literal["timelines"] = "timelines"


class AccountDeletions:
    """Threads may share it."""

    def __init__(self, database: Database, outbox: Outbox, deletions: Deletions) -> None:
        self._database = database
        self._outbox = outbox
        self._deletions = deletions

    def begin(self, connection: Connection, username: str, at: datetime) -> None:
        """Show and store nothing of this user from now on; confirm again what was confirmed before."""
        connection.execute(BEGIN, {"username": username, "at": at})
        if connection.execute(IS_CLEARED, {"username": username}).scalar_one():
            self._confirm(connection, username)

    def sweep(self) -> bool:
        """Delete a batch of what one deleted user left; False when there is nothing to do now."""
        with self._database.transaction() as connection:
            found = connection.execute(NEXT).one_or_none()
            if found is None:
                return False
            username: str = found.username
            if not self._delete_batch(connection, username):
                connection.execute(CLEARED if found.is_swept else SWEPT, {"username": username})
                if found.is_swept:
                    self._confirm(connection, username)
        return True

    def _delete_batch(self, connection: Connection, username: str) -> bool:
        """Whether there was anything."""
        found = connection.execute(POSTS, {"username": username, "limit": POSTS_BATCH}).scalars().all()
        deleted = found and self._deletions.delete_posts(connection, username, found)
        values = {"username": username, "limit": BATCH}
        rest = [connection.execute(statement, values).rowcount for statement in SWEEP]
        return bool(deleted or any(rest))

    def _confirm(self, connection: Connection, username: str) -> None:
        self._outbox.record(connection, USERS_TUBE, AccountCleared(username=username))
