"""Users who were deleted: what they have here is swept away, and nothing of theirs is stored any more."""

import sqlalchemy as sa
from alembic import op

from timelines_service import triggers

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.create_table(
        "deleted_users",
        sa.Column("username", sa.Text(collation="C"), primary_key=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("swept_at", sa.DateTime(timezone=True)),
        sa.Column("cleared_at", sa.DateTime(timezone=True)),
    )
    # Every statement that shows posts reads it: mostly it is empty.
    op.create_index(
        "deleted_users_uncleared",
        "deleted_users",
        ["username"],
        postgresql_where=sa.text("cleared_at IS NULL"),
    )
    for statements in triggers.REFUSE.values():
        op.execute(statements)


def downgrade() -> None:
    for table in triggers.REFUSE:
        op.execute(f"DROP FUNCTION {table}_refused CASCADE")
    op.drop_table("deleted_users")
