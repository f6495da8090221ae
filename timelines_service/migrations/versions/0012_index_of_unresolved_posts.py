"""An index of the posts whose mentions are not resolved, built while posts are written."""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        where = sa.text("NOT is_resolved AND repost_of IS NULL AND text LIKE '%@%'")
        build_index("posts_unresolved", "posts", ["id"], postgresql_where=where)


def downgrade() -> None:
    op.drop_index("posts_unresolved", "posts")
