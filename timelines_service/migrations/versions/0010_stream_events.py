"""The log of what live streams bring, and the triggers that write it."""

import sqlalchemy as sa
from alembic import op

from timelines_service import triggers

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.create_table(
        "stream_events",
        sa.Column(
            "xid",
            sa.BigInteger,
            primary_key=True,
            server_default=sa.text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
        ),
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("item_id", sa.Uuid, nullable=False),
        sa.Column("username", sa.Text(collation="C"), nullable=False),
        sa.Column("repost_of", sa.Uuid),
        sa.Column("original_author", sa.Text(collation="C")),
        sa.Column("tags", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("is_unlisted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("recipient", sa.Text(collation="C")),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
        ),
    )
    for statements in triggers.LOG.values():
        op.execute(statements)


def downgrade() -> None:
    for trigger in ("posts_added_logged", "posts_deleted_logged", "posts_edited_logged"):
        op.execute(f"DROP TRIGGER {trigger} ON posts")
    op.execute("DROP TRIGGER notifications_logged ON notifications")
    op.execute("DROP FUNCTION posts_logged, posts_edit_logged, notifications_logged")
    op.drop_table("stream_events")
