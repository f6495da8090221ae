"""Replies, reposts, versions and marks.

The new columns have constant defaults, which PostgreSQL adds without writing a row.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    for column in (
        sa.Column("in_reply_to", sa.Uuid),
        sa.Column("repost_of", sa.Uuid),
        sa.Column("original_author", sa.Text(collation="C")),
        sa.Column("replies", sa.Integer, nullable=False, server_default="0"),
        sa.Column("reposts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("edited_at", sa.DateTime(timezone=True)),
        sa.Column("warning", sa.Text),
        sa.Column("is_unlisted", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("tags", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("mentions", sa.ARRAY(sa.Text), nullable=False, server_default="{}"),
        sa.Column("poll_id", sa.Uuid),
    ):
        op.add_column("posts", column)
    op.create_table(
        "post_versions",
        sa.Column("post_id", sa.Uuid, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "deleted_posts",
        sa.Column("post_id", sa.Uuid, primary_key=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_swept", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.create_index(
        "deleted_posts_unswept",
        "deleted_posts",
        ["deleted_at"],
        postgresql_where=sa.text("is_swept IS false"),
    )
    op.create_table(
        "bookmarks",
        sa.Column("post_id", sa.Uuid, primary_key=True),
        sa.Column("username", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
    )
    op.create_index("bookmarks_newest", "bookmarks", ["username", sa.text("id DESC")])
    op.create_table(
        "pins",
        sa.Column("username", sa.Text(collation="C"), primary_key=True),
        sa.Column("post_id", sa.Uuid, primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
    )


def downgrade() -> None:
    for table in ("pins", "bookmarks", "deleted_posts", "post_versions"):
        op.drop_table(table)
    op.execute(
        "ALTER TABLE posts DROP in_reply_to, DROP repost_of, DROP original_author, DROP replies, "
        "DROP reposts, DROP edited_at, DROP warning, DROP is_unlisted, DROP tags, DROP mentions, DROP poll_id"
    )
