"""Idempotency keys: the same key and text again get the first post."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, literal_column, select, text
from sqlalchemy.dialects import postgresql

from common.postgres.database import Database
from timelines_service import errors
from timelines_service.models import AcceptedPost
from timelines_service.tables import idempotency_keys

KEY_TTL = timedelta(hours=24)
KEY_DELETE_BATCH = 5000

# Waits for a transaction that has the same key, and returns what was stored with the key first. It is an
# update that changes nothing: DO NOTHING would return nothing, and the key could expire before it is read.
RESERVE = (
    postgresql.insert(idempotency_keys)
    .on_conflict_do_update(
        index_elements=[idempotency_keys.c.username, idempotency_keys.c.key],
        set_={"post_id": idempotency_keys.c.post_id},
    )
    .returning(idempotency_keys.c.fingerprint, idempotency_keys.c.post_id)
)
FIND = text("""
    SELECT post_id FROM idempotency_keys
    WHERE username = :username AND key = :key AND fingerprint = :fingerprint
""")
DELETE_EXPIRED_KEYS = delete(idempotency_keys).where(
    literal_column("ctid").in_(
        select(literal_column("ctid"))
        .select_from(idempotency_keys)
        .where(idempotency_keys.c.created_at < bindparam("before"))
        .order_by(idempotency_keys.c.created_at)
        .limit(bindparam("limit"))
    )
)


def reserve(connection: Connection, post: AcceptedPost, key: str) -> UUID:
    """The id of the first post with this key: this one's, if the key is new. Raises Unprocessable."""
    fingerprint = _fingerprint(post)
    reservation = {
        "username": post.username,
        "key": key,
        "fingerprint": fingerprint,
        "post_id": post.id,
        "created_at": post.created_at,
    }
    first = connection.execute(RESERVE, reservation).one()
    if first.fingerprint != fingerprint:
        raise errors.idempotency_key_reused()
    first_id: UUID = first.post_id
    return first_id


def first_with(database: Database, post: AcceptedPost, key: str) -> UUID | None:
    """The id of the first post with this key, if there is one, and if it is the same as this one."""
    rows = database.rows(FIND, {"username": post.username, "key": key, "fingerprint": _fingerprint(post)})
    return rows[0][0] if rows else None


# What makes a post another one, beside its text.
REST = {"in_reply_to", "warning", "visibility", "poll_id"}


def _fingerprint(post: AcceptedPost) -> str:
    # Of a post with nothing but a text it is what the last version makes: its keys go on working.
    rest = post.model_dump_json(include=REST, exclude_defaults=True)
    return sha256((post.text if rest == "{}" else f"{post.text}\0{rest}").encode()).hexdigest()


def delete_expired(database: Database) -> None:
    """Delete some keys that are older than promised."""
    before = datetime.now(UTC) - KEY_TTL
    database.rows(DELETE_EXPIRED_KEYS, {"before": before, "limit": KEY_DELETE_BATCH})
