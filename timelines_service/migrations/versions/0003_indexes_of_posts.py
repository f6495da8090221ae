"""Indexes of replies, reposts and users' posts, built while posts are written."""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0003"
down_revision = "0002"

IS_REPLY = sa.text("in_reply_to IS NOT NULL")
IS_REPOST = sa.text("repost_of IS NOT NULL")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        build_index(
            "posts_by_user",
            "posts",
            ["username", sa.text("id DESC")],
            postgresql_include=["repost_of", "original_author"],
        )
        build_index("posts_replies", "posts", ["in_reply_to", "id"], postgresql_where=IS_REPLY)
        build_index(
            "posts_one_repost", "posts", ["repost_of", "username"], unique=True, postgresql_where=IS_REPOST
        )
        build_index("posts_reposts", "posts", ["repost_of", "id"], postgresql_where=IS_REPOST)
        op.drop_index("posts_newest", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    op.create_index("posts_newest", "posts", ["username", sa.text("id DESC")])
    for name in ("posts_by_user", "posts_replies", "posts_one_repost", "posts_reposts"):
        op.drop_index(name, "posts")
