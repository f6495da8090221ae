"""What PostgreSQL itself does when users and follows change, whichever version of the service changes them.

Each text may be run again: by the migration, and wherever a table that was lost is created anew.
"""

# UUIDv7 (RFC 9562, §5.7): the milliseconds of the registration, then random bits.
IDENTIFY = """
CREATE OR REPLACE FUNCTION users_id(made timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT CAST(
        lpad(to_hex(CAST(floor(extract(epoch FROM made) * 1000) AS bigint)), 12, '0')
        || '7' || substr(translate(CAST(gen_random_uuid() AS text), '-', ''), 14) AS uuid
    )
$$;
CREATE OR REPLACE FUNCTION users_identified() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.id := coalesce(NEW.id, users_id(NEW.created_at));
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER users_identified BEFORE INSERT ON users
FOR EACH ROW EXECUTE FUNCTION users_identified();
"""
FIND = """
CREATE OR REPLACE FUNCTION users_found() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_words (username, word)
    SELECT DISTINCT NEW.username, word FROM unnest(string_to_array(NEW.username, '_')) AS word
    WHERE word <> ''
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER users_found AFTER INSERT ON users
FOR EACH ROW EXECUTE FUNCTION users_found();
"""
# After the insert: a registration that waits for the deletion of the same name sees it there. Other versions
# of the service take it for the primary key, as it is meant.
NEVER_AGAIN = """
CREATE OR REPLACE FUNCTION users_never_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM deletions WHERE username = NEW.username) THEN
        RAISE unique_violation USING MESSAGE = 'deleted', CONSTRAINT = 'users_pkey';
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER users_never_again AFTER INSERT ON users
FOR EACH ROW EXECUTE FUNCTION users_never_again();
"""
# Both users are locked, in the order of their names, before either is changed: two users who follow each
# other at once cannot deadlock. After the lock, a statement sees the block that it has waited for, and the
# deletion. A foreign key would keep a user until the last follow is swept away, so this stands for it.
LOCK = """
CREATE OR REPLACE FUNCTION follows_locked() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    pair follows := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    found integer;
BEGIN
    PERFORM FROM users WHERE username IN (pair.follower, pair.followee) ORDER BY username FOR NO KEY UPDATE;
    GET DIAGNOSTICS found = ROW_COUNT;
    IF TG_OP = 'INSERT' AND found < 2 THEN
        RAISE foreign_key_violation USING MESSAGE = 'no such user', CONSTRAINT = CASE
            WHEN EXISTS (SELECT FROM users WHERE username = NEW.followee) THEN 'follows_follower_fkey'
            ELSE 'follows_followee_fkey'
        END;
    END IF;
    IF TG_OP = 'INSERT' AND EXISTS (
        SELECT FROM blocks
        WHERE (owner, subject) IN ((NEW.follower, NEW.followee), (NEW.followee, NEW.follower))
    ) THEN
        RAISE check_violation USING MESSAGE = 'blocked', CONSTRAINT = 'follows_blocked';
    END IF;
    RETURN pair;
END
$$;
CREATE OR REPLACE TRIGGER follows_locked BEFORE INSERT OR DELETE ON follows
FOR EACH ROW EXECUTE FUNCTION follows_locked();
"""
COUNT = """
CREATE OR REPLACE FUNCTION follows_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE users SET followers = followers + 1 WHERE username = NEW.followee;
    ELSE
        UPDATE users SET followers = followers - 1 WHERE username = OLD.followee;
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER follows_counted AFTER INSERT OR DELETE ON follows
FOR EACH ROW EXECUTE FUNCTION follows_counted();
"""

ON_USERS = (IDENTIFY, FIND, NEVER_AGAIN)
ON_FOLLOWS = (LOCK, COUNT)
