"""Deletions go on where likes and polls have kept the name: in old votes, and in notes of mails.

In an hour, when no process of the last version confirms that it has nothing left; one after the other, as
likes reads all its notes for each.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
        INSERT INTO deletion_steps (username, service, ask_at)
        SELECT username, service, now() + interval '1 hour' + row_number() OVER () * interval '10 seconds'
        FROM deletions CROSS JOIN unnest(ARRAY['likes', 'polls']) AS service
        ON CONFLICT DO NOTHING
    """)
    op.execute("UPDATE deletions SET finished_at = NULL")


def downgrade() -> None:
    """What was confirmed then may be confirmed again."""
