"""An index of the posts whose tags were not looked for, built while posts are written."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME = "posts_unparsed"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(NAME, "posts", postgresql_concurrently=True, if_exists=True)
        op.create_index(
            NAME,
            "posts",
            ["id"],
            postgresql_concurrently=True,
            postgresql_where=sa.text("NOT is_parsed AND text LIKE '%#%'"),
        )


def downgrade() -> None:
    op.drop_index(NAME, "posts")
