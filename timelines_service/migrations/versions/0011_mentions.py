"""Whether it is known which of those whom a post mentions exist."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.add_column("posts", sa.Column("is_resolved", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("posts", "is_resolved")
