"""Posts in PostgreSQL."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlalchemy import URL, Uuid, bindparam, delete, insert, literal_column, select, text
from sqlalchemy.dialects import postgresql

from common.postgres.database import Database
from timelines_service import errors
from timelines_service.models import Post
from timelines_service.tables import idempotency_keys, metadata, posts

MIGRATIONS = Path(__file__).parent / "migrations"

# The first page is what comes before the last id that there can be: one statement for every page.
LAST_ID = UUID(int=2**128 - 1)

# For this few followees the window is not worth it. A larger window would cost readers too much whose
# followees have not written for long.
FEW_FOLLOWEES = 100
WINDOW = 500

KEY_TTL = timedelta(hours=24)
KEY_DELETE_BATCH = 5000

# Built once: making a statement costs more than running it.
POST = select(posts).where(posts.c.id == bindparam("id"))
NEWEST = (
    select(posts)
    .where(posts.c.id < bindparam("before"))
    .order_by(posts.c.id.desc())
    .limit(bindparam("limit"))
)
NEWEST_BY_USER = NEWEST.where(posts.c.username == bindparam("username"))
ADD = insert(posts)
ADD_MISSING = postgresql.insert(posts).on_conflict_do_nothing(index_elements=[posts.c.id])

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
DELETE_EXPIRED_KEYS = delete(idempotency_keys).where(
    literal_column("ctid").in_(
        select(literal_column("ctid"))
        .select_from(idempotency_keys)
        .where(idempotency_keys.c.created_at < bindparam("before"))
        .order_by(idempotency_keys.c.created_at)
        .limit(bindparam("limit"))
    )
)

# A home timeline, the newest posts of many users, has no index. The obvious `username = ANY(followees)
# ORDER BY id DESC LIMIT n` lets the planner walk the primary key backwards until it has met enough of
# them: through the whole table when they have not written for long. These two have no such case.
#
# By followee: take each one's newest post (one probe of posts_newest), keep the n followees with the
# newest ones, since only they can fill the page, and of these take n posts each. The work grows with the
# number of followees, not with the table. `LIMIT (SELECT n)`, because a planner that knows n, and that most
# users have written less, may fetch and sort all posts of one who has written a hundred thousand.
BY_FOLLOWEE = text("""
    WITH active AS MATERIALIZED (
        SELECT followee.username, newest.id
        FROM unnest(CAST(:followees AS text[])) AS followee (username)
        CROSS JOIN LATERAL (
            SELECT id FROM posts
            WHERE username = followee.username AND id < :before
            ORDER BY id DESC LIMIT 1
        ) AS newest
        ORDER BY newest.id DESC LIMIT :limit
    )
    SELECT posts.id, posts.username, posts.text, posts.created_at
    FROM (
        SELECT theirs.id
        FROM active
        CROSS JOIN LATERAL (
            SELECT id FROM posts
            WHERE username = active.username AND id < :before
            ORDER BY id DESC LIMIT (SELECT :limit)
        ) AS theirs
        ORDER BY theirs.id DESC LIMIT :limit
    ) AS page
    JOIN posts ON posts.id = page.id
    ORDER BY posts.id DESC
""").bindparams(bindparam("before", type_=Uuid))

# In the window: a reader who follows many users finds a page among the newest posts of all, at a cost that
# hardly grows with their number. Less than a page in the window is no result. MATERIALIZED, because the
# planner would otherwise estimate the frequency of each of a thousand names, which takes longer than to look.
FROM_RECENT = text(f"""
    WITH recent AS MATERIALIZED (SELECT * FROM posts WHERE id < :before ORDER BY id DESC LIMIT {WINDOW})
    SELECT id, username, text, created_at FROM recent
    WHERE username = ANY (CAST(:followees AS text[]))
    ORDER BY id DESC LIMIT :limit
""").bindparams(bindparam("before", type_=Uuid))  # noqa: S608  a number of our own


class TimelinesStore:
    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ping = database.ping
        self.close = database.close

    @classmethod
    def connect(cls, url: URL) -> Self:
        return cls(Database.connect(url, metadata))

    def prepare(self) -> None:
        self._database.prepare(MIGRATIONS)

    def add(self, post: Post, key: str | None = None) -> Post:
        """The post stored: this one, or the first one with the same key. Raises Unprocessable."""
        if key is not None:
            return self._add_once(post, key)
        self._database.rows(ADD, post.model_dump())
        return post

    def _add_once(self, post: Post, key: str) -> Post:
        fingerprint = sha256(post.text.encode()).hexdigest()
        reservation = {"key": key, "fingerprint": fingerprint, "post_id": post.id}
        with self._database.transaction() as connection:
            first = connection.execute(
                RESERVE, reservation | {"username": post.username, "created_at": post.created_at}
            ).one()
            if first.fingerprint != fingerprint:
                raise errors.idempotency_key_reused()
            if first.post_id != post.id:
                return _post(connection.execute(POST, {"id": first.post_id}).one())
            connection.execute(ADD, post.model_dump())
        return post

    def add_missing(self, accepted: Sequence[Post]) -> None:
        """Store those of these posts that are not there yet."""
        with self._database.transaction() as connection:
            connection.execute(ADD_MISSING, [post.model_dump() for post in accepted])

    def delete_expired_keys(self) -> None:
        """Delete some idempotency keys that are older than promised."""
        before = datetime.now(UTC) - KEY_TTL
        self._database.rows(DELETE_EXPIRED_KEYS, {"before": before, "limit": KEY_DELETE_BATCH})

    def post(self, post_id: UUID) -> Post:
        """Raises NotFound."""
        found = self._posts(POST, {"id": post_id})
        if not found:
            raise errors.post_not_found()
        return found[0]

    def newest(self, limit: int, before: UUID | None) -> list[Post]:
        """Everybody's posts."""
        return self._posts(NEWEST, {"limit": limit, "before": before or LAST_ID})

    def newest_by_user(self, username: str, limit: int, before: UUID | None) -> list[Post]:
        values = {"username": username, "limit": limit, "before": before or LAST_ID}
        return self._posts(NEWEST_BY_USER, values)

    def newest_by_users(self, usernames: Sequence[str], limit: int, before: UUID | None) -> list[Post]:
        """The posts of any of these users."""
        # One string: an array of thousands of parameters would take longer than the query.
        followees = "{" + ",".join(usernames) + "}"
        values = {"followees": followees, "limit": limit, "before": before or LAST_ID}
        if len(usernames) > FEW_FOLLOWEES:
            found = self._posts(FROM_RECENT, values)
            if len(found) == limit:
                return found
        return self._posts(BY_FOLLOWEE, values)

    def _posts(self, statement: Any, values: dict[str, Any]) -> list[Post]:
        return [_post(row) for row in self._database.rows(statement, values)]


def _post(row: Any) -> Post:
    # What is stored was valid when it came in; checking it again would cost more than reading it.
    post_id, username, words, created_at = row
    return Post.model_construct(id=post_id, username=username, text=words, created_at=created_at)
