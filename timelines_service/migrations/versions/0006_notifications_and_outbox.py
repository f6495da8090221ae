"""Notifications, and the outbox: events that are not in their tubes yet."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"

NAME = sa.Text(collation="C")


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("recipient", NAME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("actor", NAME, nullable=False),
        sa.Column("subject_id", sa.Uuid, nullable=False),
        sa.Column("post_id", sa.Uuid),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_withdrawn", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    # At most one for each of these.
    op.create_index(
        "notifications_once", "notifications", ["recipient", "kind", "actor", "subject_id"], unique=True
    )
    # A page of the inbox: of all kinds, and of some.
    shown = ["is_withdrawn", "actor", "post_id"]
    newest = sa.text("id DESC")
    op.create_index("notifications_newest", "notifications", ["recipient", newest], postgresql_include=shown)
    op.create_index(
        "notifications_by_kind", "notifications", ["recipient", "kind", newest], postgresql_include=shown
    )
    # Deleting those of a post, those that a user caused, and old tombstones.
    op.create_index(
        "notifications_of_post",
        "notifications",
        ["post_id"],
        postgresql_where=sa.text("post_id IS NOT NULL"),
    )
    op.create_index("notifications_of_actor", "notifications", ["actor"])
    op.create_index(
        "notifications_withdrawn", "notifications", ["id"], postgresql_where=sa.text("is_withdrawn")
    )
    # Up to where each recipient has read.
    op.create_table(
        "notification_reads",
        sa.Column("recipient", NAME, primary_key=True),
        sa.Column("up_to", sa.Uuid, nullable=False),
    )
    op.create_table(
        "timelines_outbox",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("tube", sa.Text, nullable=False),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("traceparent", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )


def downgrade() -> None:
    op.drop_table("timelines_outbox")
    op.drop_table("notification_reads")
    op.drop_table("notifications")
