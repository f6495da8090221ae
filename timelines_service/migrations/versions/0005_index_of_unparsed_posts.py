"""An index of the posts whose tags were not looked for, built while posts are written."""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        where = sa.text("NOT is_parsed AND text LIKE '%#%'")
        build_index("posts_unparsed", "posts", ["id"], postgresql_where=where)


def downgrade() -> None:
    op.drop_index("posts_unparsed", "posts")
