"""Ids, counts of followers and words for the users who are there; each step may be repeated.

Nothing here blocks reads or writes for longer than one batch takes.
"""

import sqlalchemy as sa
from alembic import op

from common.postgres.migrations import build_index

revision = "0003"
down_revision = "0002"

# A user's follows cannot change while the user is locked, and a statement after the lock sees all of them.
FILL_IN = """
DO $$
DECLARE
    last text := '';
    batch text[];
BEGIN
    LOOP
        batch := ARRAY(
            SELECT username FROM users WHERE username > last ORDER BY username LIMIT 200 FOR NO KEY UPDATE
        );
        EXIT WHEN cardinality(batch) = 0;
        UPDATE users SET
            id = coalesce(id, users_id(created_at)),
            followers = (SELECT count(*) FROM follows WHERE followee = users.username)
        WHERE username = ANY (batch);
        INSERT INTO user_words (username, word)
        SELECT DISTINCT username, word
        FROM unnest(batch) AS username, unnest(string_to_array(username, '_')) AS word
        WHERE word <> ''
        ON CONFLICT DO NOTHING;
        last := batch[cardinality(batch)];
        COMMIT;
    END LOOP;
END
$$
"""
# SET NOT NULL takes the word of a validated constraint instead of reading the table under its lock.
REQUIRE_ID = (
    "ALTER TABLE users DROP CONSTRAINT IF EXISTS users_id_there",
    "ALTER TABLE users ADD CONSTRAINT users_id_there CHECK (id IS NOT NULL) NOT VALID",
    "ALTER TABLE users VALIDATE CONSTRAINT users_id_there",
    "ALTER TABLE users ALTER COLUMN id SET NOT NULL",
    "ALTER TABLE users DROP CONSTRAINT users_id_there",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        newest = ["followee", sa.text("position DESC")]
        build_index("follows_followers", "follows", newest, postgresql_include=["follower"])
        op.execute(FILL_IN)
        build_index("users_id_key", "users", ["id"], unique=True)
        for statement in REQUIRE_ID:
            # Behind a pooler, what is set for longer than a transaction reaches other clients.
            op.execute(f"BEGIN; SET LOCAL lock_timeout = '500ms'; {statement}; COMMIT")


def downgrade() -> None:
    op.alter_column("users", "id", nullable=True)
    op.drop_index("users_id_key")
    op.drop_index("follows_followers")
