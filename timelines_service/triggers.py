"""What PostgreSQL itself does when posts and notifications change, whichever version changes them.

Each text may be run again: by the migration, and wherever a table that was lost is created anew.
"""

# One row of the log for each post that is written, edited or deleted: it commits with the change.
# Edits have a trigger for each row: one for a statement cannot tell a new text from a new count of replies.
LOG_POSTS = """
CREATE OR REPLACE FUNCTION posts_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stream_events (kind, item_id, username, repost_of, original_author, tags, is_unlisted)
    SELECT
        CASE TG_OP WHEN 'INSERT' THEN 'post' ELSE 'delete' END,
        id, username, repost_of, original_author, tags, is_unlisted
    FROM changed ORDER BY id;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION posts_edit_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stream_events (kind, item_id, username, tags, is_unlisted)
    VALUES ('edit', NEW.id, NEW.username, OLD.tags || NEW.tags, NEW.is_unlisted);
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER posts_added_logged AFTER INSERT ON posts
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION posts_logged();
CREATE OR REPLACE TRIGGER posts_deleted_logged AFTER DELETE ON posts
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION posts_logged();
CREATE OR REPLACE TRIGGER posts_edited_logged AFTER UPDATE OF text ON posts
FOR EACH ROW WHEN (OLD.text IS DISTINCT FROM NEW.text) EXECUTE FUNCTION posts_edit_logged();
"""
# Also one that comes back: its id is new then.
LOG_NOTIFICATIONS = """
CREATE OR REPLACE FUNCTION notifications_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' OR OLD.is_withdrawn THEN
        INSERT INTO stream_events (kind, item_id, username, recipient)
        VALUES ('notification', NEW.id, NEW.actor, NEW.recipient);
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER notifications_logged AFTER INSERT OR UPDATE OF is_withdrawn ON notifications
FOR EACH ROW WHEN (NOT NEW.is_withdrawn) EXECUTE FUNCTION notifications_logged();
"""

LOG = {"posts": LOG_POSTS, "notifications": LOG_NOTIFICATIONS}


def _refuse(table: str, *columns: str) -> str:
    """Leave out new rows of deleted users, however late they come. That is no error."""
    names = ", ".join(f"NEW.{column}" for column in columns)
    return f"""
CREATE OR REPLACE FUNCTION {table}_refused() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM deleted_users WHERE username IN ({names})) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER {table}_refused BEFORE INSERT ON {table}
FOR EACH ROW EXECUTE FUNCTION {table}_refused();
"""


REFUSE = {
    "posts": _refuse("posts", "username"),
    "bookmarks": _refuse("bookmarks", "username"),
    "pins": _refuse("pins", "username"),
    "notifications": _refuse("notifications", "recipient", "actor"),
}
