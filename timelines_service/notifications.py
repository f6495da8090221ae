"""Notifications in PostgreSQL: what a user is told of what others did."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, TextClause, text

from common.fields import later_id, new_id
from timelines_service.models import NotificationKind

# The subject of a notification that is about no post and no poll.
NOTHING = UUID(int=0)

# Notifications of one recipient commit in the order of their ids: a reader who has seen one has seen all
# before it. The locks are taken in one order, so that two transactions cannot deadlock.
TAKE_TURN = text("""
    SELECT pg_advisory_xact_lock(hashtext('notifications'), turn) FROM (
        SELECT DISTINCT hashtext(recipient) AS turn FROM unnest(CAST(:recipients AS text[])) AS recipient
        ORDER BY turn
    ) AS turns
""")
# A statement of its own: it sees what the turn has waited for.
NEWEST = text("""
    SELECT recipient, (
        SELECT id FROM notifications WHERE notifications.recipient = one.recipient COLLATE "C"
        ORDER BY id DESC LIMIT 1
    ) AS newest FROM unnest(CAST(:recipients AS text[])) AS one (recipient)
""")
# All of a transaction in one statement: its time is bounded. Causes come at least once, and in any order: the
# newest change of a cause wins.
CHANGE = """
    INSERT INTO notifications (id, recipient, kind, actor, post_id, subject_id, changed_at, is_withdrawn)
    SELECT id, recipient, kind, actor, post_id, subject_id, COALESCE(at, clock_timestamp()), {is_withdrawn}
    FROM unnest(
        CAST(:id AS uuid[]), CAST(:recipient AS text[]), CAST(:kind AS text[]), CAST(:actor AS text[]),
        CAST(:post_id AS uuid[]), CAST(:subject_id AS uuid[]), CAST(:at AS timestamptz[])
    ) AS changed (id, recipient, kind, actor, post_id, subject_id, at)
    ON CONFLICT (recipient, kind, actor, subject_id) DO UPDATE SET {change}
    WHERE notifications.changed_at < excluded.changed_at
"""
TELL = text(
    CHANGE.format(
        is_withdrawn="false",
        change="""
        id = CASE WHEN notifications.is_withdrawn THEN excluded.id ELSE notifications.id END,
        changed_at = excluded.changed_at, is_withdrawn = false""",
    )
)
WITHDRAW = text(
    CHANGE.format(
        is_withdrawn="true",
        change="id = excluded.id, changed_at = excluded.changed_at, is_withdrawn = true",
    )
)
NOW = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Cause:
    """What somebody did, and who is to be told of it.

    `at` orders the changes of one cause; None is now, by the clock of the database. `subject_id` tells apart
    causes of one kind and actor: a poll, or the post that it is about.
    """

    kind: NotificationKind
    recipient: str
    actor: str
    at: datetime | None = None
    post_id: UUID | None = None
    subject_id: UUID | None = None

    @property
    def key(self) -> tuple[str, str, str, UUID]:
        """What there is at most one notification for."""
        return self.recipient, self.kind, self.actor, self.subject_id or self.post_id or NOTHING


def tell(connection: Connection, *causes: Cause) -> None:
    """Tell the recipients, as `change` does."""
    change(connection, causes)


def withdraw(connection: Connection, *causes: Cause) -> None:
    """Take back what the recipients were told, or will be, as `change` does."""
    change(connection, undone=causes)


def change(connection: Connection, told: Iterable[Cause] = (), undone: Iterable[Cause] = ()) -> None:
    """Tell the recipients of what is so, each of each cause once, and take back what is not any more.

    Of their own doing they are told only that a poll has ended. A transaction
    locks posts first, and calls this once.
    """
    changes = [(TELL, _for_others(told)), (WITHDRAW, _for_others(undone))]
    recipients = list({cause.recipient for _, causes in changes for cause in causes})
    if not recipients:
        return
    take_turn(connection, recipients)
    found = connection.execute(NEWEST, {"recipients": recipients})
    newest: dict[str, UUID | None] = {row.recipient: row.newest for row in found}
    for statement, causes in changes:
        if causes:
            _write(connection, statement, causes, newest)


def take_turn(connection: Connection, recipients: Sequence[str]) -> None:
    """Until this transaction ends, no other changes the notifications of these users."""
    connection.execute(TAKE_TURN, {"recipients": list(recipients)})


def _for_others(causes: Iterable[Cause]) -> list[Cause]:
    return [cause for cause in causes if cause.actor != cause.recipient or cause.kind == "poll_ended"]


def _write(
    connection: Connection, statement: TextClause, causes: Sequence[Cause], newest: dict[str, UUID | None]
) -> None:
    rows = []
    for cause in _newest_of_each(causes):
        newest[cause.recipient] = next_id = later_id(new_id(), newest[cause.recipient])
        rows.append(vars(cause) | {"id": next_id, "subject_id": cause.key[-1]})
    connection.execute(statement, {column: [row[column] for row in rows] for column in rows[0]})


def _newest_of_each(causes: Sequence[Cause]) -> Iterable[Cause]:
    # One statement cannot change a row twice.
    return {cause.key: cause for cause in sorted(causes, key=lambda one: one.at or NOW)}.values()
