"""An index that lets a poll be in one post only, built while posts are written."""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        where = sa.text("poll_id IS NOT NULL")
        build_index("posts_one_poll", "posts", ["poll_id"], unique=True, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("posts_one_poll", "posts")
