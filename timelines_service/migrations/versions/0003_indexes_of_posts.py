"""Indexes of replies, reposts and users' posts, built while posts are written.

`IF EXISTS`: an attempt that broke off leaves an index that PostgreSQL calls invalid.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

IS_REPOST = sa.text("repost_of IS NOT NULL")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _build("posts_by_user", ["username", sa.text("id DESC")], include=["repost_of", "original_author"])
        _build("posts_replies", ["in_reply_to", "id"], where=sa.text("in_reply_to IS NOT NULL"))
        _build("posts_one_repost", ["repost_of", "username"], unique=True, where=IS_REPOST)
        _build("posts_reposts", ["repost_of", "id"], where=IS_REPOST)
        op.drop_index("posts_newest", postgresql_concurrently=True, if_exists=True)


def _build(
    name: str,
    columns: list[str | sa.TextClause],
    *,
    unique: bool = False,
    where: sa.TextClause | None = None,
    include: list[str] | None = None,
) -> None:
    op.drop_index(name, "posts", postgresql_concurrently=True, if_exists=True)
    op.create_index(
        name,
        "posts",
        columns,
        unique=unique,
        postgresql_concurrently=True,
        postgresql_where=where,
        postgresql_include=include or [],
    )


def downgrade() -> None:
    op.create_index("posts_newest", "posts", ["username", sa.text("id DESC")])
    for name in ("posts_by_user", "posts_replies", "posts_one_repost", "posts_reposts"):
        op.drop_index(name, "posts")
