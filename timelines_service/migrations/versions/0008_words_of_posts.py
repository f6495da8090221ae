"""The words by which posts are found. The worker finds those of the posts that are there already."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.add_column("posts", sa.Column("words", postgresql.TSVECTOR))


def downgrade() -> None:
    op.drop_column("posts", "words")
