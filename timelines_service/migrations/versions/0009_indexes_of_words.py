"""Indexes of the words of posts, and of the posts whose words were not looked for."""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        build_index(
            "posts_words",
            "posts",
            ["words"],
            postgresql_using="gin",
            postgresql_where=sa.text("words IS NOT NULL"),
            postgresql_with={"fastupdate": "off"},
        )
        where = sa.text("words IS NULL AND repost_of IS NULL AND NOT is_unlisted")
        build_index("posts_unindexed", "posts", ["id"], postgresql_where=where)


def downgrade() -> None:
    for name in ("posts_words", "posts_unindexed"):
        op.drop_index(name, "posts")
