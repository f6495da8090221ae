"""Indexes of words with the times of their posts, of all posts and of two samples, instead of one without."""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0014"
down_revision = "0013"

TIMES = sa.text(
    "(ARRAY[left(CAST(id AS text), 8), left(CAST(id AS text), 7), left(CAST(id AS text), 6), "
    "left(CAST(id AS text), 5), left(CAST(id AS text), 4)])"
)
# The posts of each, by what is random in their ids.
INDEXES = {
    "posts_words_by_time": "words IS NOT NULL",
    "posts_words_in_256": "words IS NOT NULL AND right(CAST(id AS text), 2) = '00'",
    "posts_words_in_4096": "words IS NOT NULL AND right(CAST(id AS text), 3) = '000'",
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, condition in INDEXES.items():
            _build(name, [TIMES, "words"], condition)
        # The new one serves instances of the last version, too.
        op.drop_index("posts_words", "posts", postgresql_concurrently=True, if_exists=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _build("posts_words", ["words"], "words IS NOT NULL")
        for name in INDEXES:
            op.drop_index(name, "posts", postgresql_concurrently=True, if_exists=True)


def _build(name: str, columns: list[sa.TextClause | str], condition: str) -> None:
    build_index(
        name,
        "posts",
        columns,
        postgresql_using="gin",
        postgresql_where=sa.text(condition),
        postgresql_with={"fastupdate": "off"},
    )
