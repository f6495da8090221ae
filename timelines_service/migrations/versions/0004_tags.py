"""Hashtags of posts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.add_column("posts", sa.Column("is_parsed", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "post_tags",
        sa.Column("username", sa.Text(collation="C"), primary_key=True),
        sa.Column("tag", sa.Text(collation="C"), primary_key=True),
        sa.Column("post_id", sa.Uuid, primary_key=True),
        sa.Column("is_unlisted", sa.Boolean, nullable=False),
    )
    listed = sa.text("NOT is_unlisted")
    op.create_index(
        "post_tags_listed", "post_tags", ["tag", sa.text("post_id DESC")], postgresql_where=listed
    )
    op.create_index(
        "post_tags_newest", "post_tags", ["post_id"], postgresql_where=listed, postgresql_include=["tag"]
    )


def downgrade() -> None:
    op.drop_table("post_tags")
    op.drop_column("posts", "is_parsed")
