"""Deletions of accounts: their tombstones, and which services have yet to confirm.

A deletion takes the row of `users` at once, and the follows, blocks and mutes afterwards: hence the foreign
keys go. Instances of the last version find no such user by themselves, and cannot register the name again.
"""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index
from users_service import triggers

revision = "0005"
down_revision = "0004"

FOREIGN_KEYS = {
    "follows": ("follows_follower_fkey", "follows_followee_fkey"),
    "blocks": ("blocks_owner_fkey", "blocks_subject_fkey"),
    "mutes": ("mutes_owner_fkey", "mutes_subject_fkey"),
}


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.execute("LOCK TABLE follows, blocks, mutes, users IN ACCESS EXCLUSIVE MODE")
    op.create_table(
        "deletions",
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_jti", sa.Text, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "deletion_steps",
        sa.Column("username", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("ask_at", sa.DateTime(timezone=True), nullable=False),
    )
    # Profiles and lists of names look here for those whose follows are not swept away yet.
    op.create_index(
        "deletion_steps_own", "deletion_steps", ["username"], postgresql_where=sa.text("service = 'users'")
    )
    for table, names in FOREIGN_KEYS.items():
        for name in names:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    for statements in (triggers.LOCK, triggers.NEVER_AGAIN):
        op.execute(statements)
    with op.get_context().autocommit_block():
        # Deleting the mutes of a user who is muted.
        build_index("mutes_of", "mutes", ["subject"], postgresql_include=["owner"])


def downgrade() -> None:
    op.drop_index("mutes_of")
    op.execute("DROP FUNCTION users_never_again CASCADE")
    op.drop_table("deletion_steps")
    op.drop_table("deletions")
