"""Profiles, blocks, mutes, words to search and revocations; 0003 fills in what is there already.

The triggers do what instances of the last version, which go on beside new ones, know nothing of.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# UUIDv7 (RFC 9562, §5.7): the milliseconds of the registration, then random bits.
IDENTIFY = """
CREATE FUNCTION users_id(made timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT CAST(
        lpad(to_hex(CAST(floor(extract(epoch FROM made) * 1000) AS bigint)), 12, '0')
        || '7' || substr(translate(CAST(gen_random_uuid() AS text), '-', ''), 14) AS uuid
    )
$$;
CREATE FUNCTION users_identified() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.id := coalesce(NEW.id, users_id(NEW.created_at));
    RETURN NEW;
END
$$;
CREATE TRIGGER users_identified BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION users_identified();
"""
FIND = """
CREATE FUNCTION users_found() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_words (username, word)
    SELECT DISTINCT NEW.username, word FROM unnest(string_to_array(NEW.username, '_')) AS word
    WHERE word <> '';
    RETURN NULL;
END
$$;
CREATE TRIGGER users_found AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION users_found();
"""
# Both users are locked, in the order of their names, before either is changed: two users who follow each
# other at once cannot deadlock. After the lock, a statement sees the block that it has waited for.
LOCK = """
CREATE FUNCTION follows_locked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pair follows := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM FROM users WHERE username IN (pair.follower, pair.followee) ORDER BY username FOR NO KEY UPDATE;
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM blocks
        WHERE (owner, subject) IN ((NEW.follower, NEW.followee), (NEW.followee, NEW.follower))
    ) THEN
        RAISE check_violation USING MESSAGE = 'blocked', CONSTRAINT = 'follows_blocked';
    END IF;
    RETURN pair;
END
$$;
CREATE TRIGGER follows_locked BEFORE INSERT OR DELETE ON follows
FOR EACH ROW EXECUTE FUNCTION follows_locked();
"""
COUNT = """
CREATE FUNCTION follows_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE users SET followers = followers + 1 WHERE username = NEW.followee;
    ELSE
        UPDATE users SET followers = followers - 1 WHERE username = OLD.followee;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER follows_counted AFTER INSERT OR DELETE ON follows
FOR EACH ROW EXECUTE FUNCTION follows_counted();
"""


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again. A follow
    # takes its locks in this order, too.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    op.execute("LOCK TABLE follows, users IN ACCESS EXCLUSIVE MODE")
    for column in (
        sa.Column("id", sa.Uuid),
        sa.Column("display_name", sa.Text),
        sa.Column("mail_notifications", sa.Boolean, nullable=False, server_default="true"),
        sa.Column("followers", sa.Integer, nullable=False, server_default="0"),
        sa.Column("token_generation", sa.Integer, nullable=False, server_default="0"),
    ):
        op.add_column("users", column)
    for name in ("blocks", "mutes"):
        _create_marks(name)
    op.create_index("blocks_of", "blocks", ["subject"], postgresql_include=["owner"])
    op.create_table(
        "user_words",
        sa.Column(
            "username",
            sa.Text,
            sa.ForeignKey("users.username", name="user_words_username_fkey", ondelete="CASCADE"),
        ),
        sa.Column("word", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("username", "word"),
    )
    op.create_index("user_words_sorted", "user_words", ["word", "username"])
    op.create_table(
        "revocations",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("username", sa.Text, nullable=False),
        sa.Column("jti", sa.Text),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    for statements in (IDENTIFY, FIND, LOCK, COUNT):
        op.execute(statements)


def _create_marks(name: str) -> None:
    op.create_table(
        name,
        sa.Column("owner", sa.Text, sa.ForeignKey("users.username", name=f"{name}_owner_fkey")),
        sa.Column("subject", sa.Text, sa.ForeignKey("users.username", name=f"{name}_subject_fkey")),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.PrimaryKeyConstraint("owner", "subject"),
    )
    op.create_index(
        f"{name}_newest", name, ["owner", sa.text("position DESC")], postgresql_include=["subject"]
    )


def downgrade() -> None:
    op.execute(
        "DROP FUNCTION follows_locked, follows_counted, users_found, users_identified, users_id CASCADE"
    )
    for table in ("revocations", "user_words", "mutes", "blocks"):
        op.drop_table(table)
    for column in ("token_generation", "followers", "mail_notifications", "display_name", "id"):
        op.drop_column("users", column)
