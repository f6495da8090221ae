"""Profiles, blocks, mutes, words to search and revocations; 0003 fills in what is there already.

Triggers do what instances of the last version, which go on beside new ones, know nothing of.
"""

import sqlalchemy as sa
from alembic import op

from users_service import triggers

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again. A follow
    # takes its locks in this order, too.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.execute("LOCK TABLE follows, users IN ACCESS EXCLUSIVE MODE")
    for column in (
        sa.Column("id", sa.Uuid),
        sa.Column("display_name", sa.Text),
        sa.Column("mail_notifications", sa.Boolean, nullable=False, server_default="true"),
        sa.Column("followers", sa.Integer, nullable=False, server_default="0"),
        sa.Column("token_generation", sa.Integer, nullable=False, server_default="0"),
    ):
        op.add_column("users", column)
    for name in ("blocks", "mutes"):
        _create_marks(name)
    op.create_index("blocks_of", "blocks", ["subject"], postgresql_include=["owner"])
    op.create_table(
        "user_words",
        sa.Column(
            "username",
            sa.Text,
            sa.ForeignKey("users.username", name="user_words_username_fkey", ondelete="CASCADE"),
        ),
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("username", "word"),
    )
    op.create_index("user_words_sorted", "user_words", ["word", "username"])
    op.create_table(
        "revocations",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("jti", sa.Text),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    for statements in (triggers.IDENTIFY, triggers.FIND, *triggers.ON_FOLLOWS):
        op.execute(statements)


def _create_marks(name: str) -> None:
    op.create_table(
        name,
        sa.Column("owner", sa.Text, sa.ForeignKey("users.username", name=f"{name}_owner_fkey")),
        sa.Column("subject", sa.Text, sa.ForeignKey("users.username", name=f"{name}_subject_fkey")),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "subject"),
    )
    op.create_index(
        f"{name}_newest", name, ["owner", sa.text("position DESC")], postgresql_include=["subject"]
    )


def downgrade() -> None:
    op.execute(
        "DROP FUNCTION follows_locked, follows_counted, users_found, users_identified, users_id CASCADE"
    )
    for table in ("revocations", "user_words", "mutes", "blocks"):
        op.drop_table(table)
    for column in ("token_generation", "followers", "mail_notifications", "display_name", "id"):
        op.drop_column("users", column)
