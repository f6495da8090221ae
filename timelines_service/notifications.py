"""Notifications in PostgreSQL: what a user is told of what others did."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, text

from common.fields import new_id

Kind = Literal["like", "mention", "reply", "repost", "follow", "poll_ended"]

# The subject of a notification that is about no post and no poll.
NOTHING = UUID(int=0)

# Causes come at least once, and in any order: the newest change of a cause wins.
TELL = text("""
    INSERT INTO notifications (id, recipient, kind, actor, subject_id, post_id, changed_at)
    VALUES (:id, :recipient, :kind, :actor, :subject_id, :post_id, :at)
    ON CONFLICT (recipient, kind, actor, subject_id) DO UPDATE SET
        id = excluded.id, changed_at = excluded.changed_at, is_read = false, is_withdrawn = false
    WHERE notifications.is_withdrawn AND notifications.changed_at < excluded.changed_at
""")
WITHDRAW = text("""
    INSERT INTO notifications (id, recipient, kind, actor, subject_id, post_id, changed_at, is_withdrawn)
    VALUES (:id, :recipient, :kind, :actor, :subject_id, :post_id, :at, true)
    ON CONFLICT (recipient, kind, actor, subject_id) DO UPDATE SET
        changed_at = excluded.changed_at, is_withdrawn = true
    WHERE notifications.changed_at < excluded.changed_at
""")


@dataclass(frozen=True)
class Cause:
    """What somebody did, when, and who is to be told of it; `subject_id` is a post or a poll, or NOTHING."""

    kind: Kind
    recipient: str
    actor: str
    at: datetime
    subject_id: UUID = NOTHING
    post_id: UUID | None = None


def tell(connection: Connection, *causes: Cause) -> None:
    """Tell the recipients, each of each cause once; nobody is told of their own doing."""
    if rows := _rows(causes):
        connection.execute(TELL, rows)


def withdraw(connection: Connection, *causes: Cause) -> None:
    """Take back what the recipients were told, or will be: these causes are undone."""
    if rows := _rows(causes):
        connection.execute(WITHDRAW, rows)


def _rows(causes: Sequence[Cause]) -> list[dict[str, Any]]:
    # In one order: two transactions with the same causes cannot deadlock.
    ordered = sorted(causes, key=lambda one: (one.recipient, one.kind, one.actor, one.subject_id))
    return [vars(one) | {"id": new_id()} for one in ordered if one.actor != one.recipient]
