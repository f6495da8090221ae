"""The inbox in PostgreSQL: a user's notifications, as the user reads, counts and dismisses them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from common.fields import first_id, new_id, time_of
from common.postgres.database import Database
from timelines_service import errors
from timelines_service.batches import delete_batch
from timelines_service.models import Notification, NotificationKind
from timelines_service.notifications import NOTHING, take_turn
from timelines_service.post_query import DELETED_USERS, LAST_ID, Page

KEPT_FOR = timedelta(days=90)
# Events come again within hours.
TOMBSTONES_KEPT_FOR = timedelta(days=1)
BATCH = 1000
MAX_COUNT = 1000

# ruff: noqa: S608  what the statements are made of stands here
# Not those of users who are hidden, nor of a post that is deleted but not swept yet. An index has all of it.
VISIBLE = f"""NOT is_withdrawn AND actor <> ALL (CAST(:hidden AS text[])) AND actor <> ALL ({DELETED_USERS})
    AND (
        post_id IS NULL OR (SELECT posts.id FROM posts WHERE posts.id = notifications.post_id) IS NOT NULL
    )"""
READ_UP_TO = f"""COALESCE(
        (SELECT up_to FROM notification_reads WHERE recipient = :recipient), CAST('{NOTHING}' AS uuid)
    )"""
NEAREST = f"""SELECT id FROM notifications
    WHERE recipient = :recipient AND id {{past}} :cursor AND {VISIBLE} {{kind}}
    ORDER BY id {{order}} LIMIT :limit"""
# Of each kind as much as a page, each from its own part of an index.
NEAREST_OF_KINDS = f"""SELECT theirs.id FROM unnest(CAST(:kinds AS text[])) AS wanted
    CROSS JOIN LATERAL ({NEAREST.replace("{kind}", "AND kind = wanted")}) AS theirs
    ORDER BY theirs.id {{order}} LIMIT :limit"""
ENTRIES = f"""
    WITH page AS MATERIALIZED ({{nearest}})
    SELECT id, kind, actor, post_id, id <= {READ_UP_TO}
    FROM page JOIN notifications USING (id) ORDER BY id DESC
"""
UNREAD = text(f"""
    SELECT count(*) FROM (
        SELECT FROM notifications
        WHERE recipient = :recipient AND id > {READ_UP_TO} AND {VISIBLE}
        ORDER BY id DESC LIMIT :most
    ) AS unread
""")
BY_ID = text(f"""
    SELECT id, kind, actor, post_id, id <= {READ_UP_TO.replace(":recipient", "notifications.recipient")}
    FROM notifications WHERE id = ANY (CAST(:ids AS uuid[])) AND {VISIBLE}
""")
# Not further than to the newest one: those to come are unread.
READ = text("""
    INSERT INTO notification_reads (recipient, up_to)
    SELECT recipient, LEAST(id, :up_to) FROM notifications WHERE recipient = :recipient
    ORDER BY id DESC LIMIT 1
    ON CONFLICT (recipient) DO UPDATE SET up_to = GREATEST(notification_reads.up_to, excluded.up_to)
""")
# A tombstone: its event may come again. The new id says since when it is one.
DISMISS = text(f"""
    UPDATE notifications SET is_withdrawn = true, id = :tombstone
    WHERE id = :id AND recipient = :recipient AND {VISIBLE}
""")
OLD = delete_batch("notifications", "id < :before ORDER BY id")
OLD_TOMBSTONES = delete_batch("notifications", "is_withdrawn AND id < :before ORDER BY id")


def _pages(nearest: str) -> dict[bool, Any]:
    """The statement for a page of older ones, and for one of newer ones."""
    return {
        False: text(ENTRIES.format(nearest=nearest.format(past="<", order="DESC", kind=""))),
        True: text(ENTRIES.format(nearest=nearest.format(past=">", order="ASC", kind=""))),
    }


PAGES, PAGES_OF_KINDS = _pages(NEAREST), _pages(NEAREST_OF_KINDS)


class Inbox:
    """What each user was told. Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self, recipient: str, page: Page, kinds: Sequence[NotificationKind], hidden: Sequence[str]
    ) -> list[Notification]:
        """The notifications nearest to the cursor, newest first; of all kinds where none is given."""
        values = {
            "recipient": recipient,
            "limit": page.limit,
            "cursor": page.after or page.before or LAST_ID,
            "kinds": list(kinds),
            "hidden": list(hidden),
        }
        pages = PAGES_OF_KINDS if kinds else PAGES
        return _notifications(self._database.rows(pages[page.after is not None], values))

    def by_id(self, ids: Sequence[UUID]) -> list[Notification]:
        """Those of these that are there, whoever they are for."""
        return _notifications(self._database.rows(BY_ID, {"ids": list(ids), "hidden": []}))

    def unread(self, recipient: str, hidden: Sequence[str]) -> int:
        """How many are new to the user, but at most `MAX_COUNT`."""
        values = {"recipient": recipient, "hidden": list(hidden), "most": MAX_COUNT}
        [(count,)] = self._database.rows(UNREAD, values)
        return int(count)

    def mark_read(self, recipient: str, up_to: UUID) -> None:
        """The user has read what is not newer than this id, whether that is still there or not."""
        self._database.rows(READ, {"recipient": recipient, "up_to": up_to})

    def dismiss(self, recipient: str, notification_id: UUID) -> None:
        """Remove one for good. Raises NotFound."""
        values = {"recipient": recipient, "id": notification_id, "hidden": [], "tombstone": new_id()}
        with self._database.transaction() as connection:
            take_turn(connection, [recipient])
            if not connection.execute(DISMISS, values).rowcount:
                raise errors.notification_not_found()

    def sweep(self) -> bool:
        """Delete a batch of what is old; False when there is no more of it."""
        now = datetime.now(UTC)
        deleted = 0
        for statement, kept_for in ((OLD, KEPT_FOR), (OLD_TOMBSTONES, TOMBSTONES_KEPT_FOR)):
            with self._database.transaction() as connection:
                values = {"before": first_id(now - kept_for), "limit": BATCH}
                deleted = max(deleted, connection.execute(statement, values).rowcount)
        return deleted == BATCH


def _notifications(rows: Sequence[Any]) -> list[Notification]:
    return [
        Notification(id=id_, kind=kind, actor=actor, post_id=post, created_at=time_of(id_), read=is_read)
        for id_, kind, actor, post, is_read in rows
    ]
