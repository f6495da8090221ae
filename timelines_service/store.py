"""Posts in PostgreSQL: new ones, single ones, and the timelines made of them."""

from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlalchemy import URL, Connection, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from common.postgres.database import Database
from common.postgres.outbox import Outbox
from timelines_service import errors, idempotency
from timelines_service.account_deletions import AccountDeletions
from timelines_service.deletions import Deletions
from timelines_service.edits import Edits
from timelines_service.events import Events
from timelines_service.full_text import document
from timelines_service.home_timelines import BY_FOLLOWEE, FEW_FOLLOWEES, FROM_RECENT
from timelines_service.inbox import Inbox
from timelines_service.marks import Bookmarks, Pins
from timelines_service.mentions import Mentions, causes
from timelines_service.models import AcceptedPost, Post, PostCounts
from timelines_service.notifications import Cause, tell
from timelines_service.post_query import CONTENT, DELETED_USERS, Page, PostList, PostQuery, array_of
from timelines_service.post_search import PostSearch
from timelines_service.post_tags import PostTags, add_tags
from timelines_service.reposts import Reposts
from timelines_service.stream_log import StreamLog
from timelines_service.tables import metadata, outbox, posts
from timelines_service.tags import hashtags, mentions
from timelines_service.threads import Threads

MIGRATIONS = Path(__file__).parent / "migrations"

# Built once: making a statement costs more than running it.
POSTS = PostQuery("SELECT {columns} FROM posts AS page {content} WHERE page.id = ANY (CAST(:ids AS uuid[]))")
NEWEST = PostList("""
    SELECT {columns} FROM posts AS page {content}
    WHERE page.repost_of IS NULL AND NOT page.is_unlisted AND page.id {past} :cursor
    ORDER BY page.id {order} LIMIT :limit
""")
NEWEST_BY_USER = PostList("""
    SELECT {columns} FROM posts AS page {content}
    WHERE page.username = :username AND page.id {past} :cursor
        AND (:replies OR page.in_reply_to IS NULL) AND (:reposts OR page.repost_of IS NULL)
    ORDER BY page.id {order} LIMIT :limit
""")
COUNTS = text(f"""
    SELECT username, counted.posts, newest.created_at
    FROM unnest(CAST(:usernames AS text[])) WITH ORDINALITY AS asked (username, place)
    CROSS JOIN LATERAL (
        SELECT count(*) AS posts FROM posts
        WHERE posts.username = asked.username COLLATE "C" AND repost_of IS NULL
            AND asked.username <> ALL ({DELETED_USERS})
    ) AS counted
    LEFT JOIN LATERAL (
        SELECT created_at FROM posts
        WHERE posts.username = asked.username COLLATE "C" AND repost_of IS NULL
            AND asked.username <> ALL ({DELETED_USERS})
        ORDER BY id DESC LIMIT 1
    ) AS newest ON true
    ORDER BY place
""")  # noqa: S608  what it is made of stands in post_query
ORIGINAL = text(f"""
    SELECT content.id, content.username FROM posts AS page {CONTENT} WHERE page.id = :id
""")  # noqa: S608  likewise
ADD = text("""
    INSERT INTO posts (
        id, username, text, created_at, in_reply_to, warning, is_unlisted, tags, is_parsed, poll_id, words,
        mentions, is_resolved
    )
    VALUES (
        :id, :username, :text, :created_at, :in_reply_to, :warning, :is_unlisted, :tags, :is_parsed, :poll_id,
        :words, :mentions, :is_resolved
    )
""")
ADD_MISSING = (
    postgresql.insert(posts).on_conflict_do_nothing(index_elements=[posts.c.id]).returning(posts.c.id)
)
POSTS_OF_POLLS = text("SELECT poll_id, id FROM posts WHERE poll_id = ANY (CAST(:poll_ids AS uuid[]))")
# A job may come again after its post was deleted.
DELETE_REVIVED = text("""
    DELETE FROM posts USING deleted_posts
    WHERE deleted_posts.post_id = posts.id AND posts.id = ANY (:ids) RETURNING posts.id
""")
COUNT_REPLY = text("UPDATE posts SET replies = replies + 1 WHERE id = :in_reply_to RETURNING username")


class TimelinesStore:
    """All that is stored of posts. Each verb is one transaction."""

    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ping = database.ping
        self.close = database.close
        self.replica = database.replica
        self.edits = Edits(database)
        self.outbox = Outbox(database, outbox)
        self.reposts = Reposts(database, self.outbox)
        self.deletions = Deletions(database, self.reposts, self.outbox)
        self.account_deletions = AccountDeletions(database, self.outbox, self.deletions)
        self.bookmarks = Bookmarks(database)
        self.pins = Pins(database)
        self.threads = Threads(database)
        self.tags = PostTags(database)
        self.events = Events(database, self.account_deletions)
        self.inbox = Inbox(database)
        self.search = PostSearch(database)
        self.stream_log = StreamLog(database)
        self.mentions = Mentions(database)

    @classmethod
    def connect(cls, url: URL, replica_url: URL | None = None) -> Self:
        return cls(Database.connect(url, metadata, replica_url))

    def prepare(self) -> None:
        self._database.prepare(MIGRATIONS)

    def add(self, post: AcceptedPost, key: str | None = None, mentioned: Sequence[str] | None = ()) -> Post:
        """The post stored: this one, or the first one with the same key.

        `mentioned` are the users whom it mentions, or None if they are not known yet.
        Raises Unprocessable when the key was used for another post, NotFound when its post is deleted, and
        Conflict when its poll is in another post.
        """
        row = row_of(post, mentioned)
        is_plain = post.in_reply_to is None and post.poll_id is None and not row["tags"] and not mentioned
        if key is None and is_plain:
            self._database.rows(ADD, row)
            return as_written(post, row)
        try:
            first_id = self._add(post, row, key)
        except IntegrityError as exc:
            if post.poll_id is None:
                raise
            raise errors.poll_in_use() from exc
        return as_written(post, row) if first_id == post.id else self.post(first_id)

    def first_with(self, key: str, post: AcceptedPost) -> Post | None:
        """The first post with this key, if that is the same as this one. Raises NotFound if it is deleted."""
        first_id = idempotency.first_with(self._database, post, key)
        return self.post(first_id) if first_id else None

    def _add(self, post: AcceptedPost, row: dict[str, Any], key: str | None) -> UUID:
        with self._database.transaction() as connection:
            first_id = idempotency.reserve(connection, post, key) if key else post.id
            # No row is added when the user was deleted just now.
            if first_id == post.id and connection.execute(ADD, row).rowcount:
                _enter(connection, [post], causes(post, row["mentions"]))
        return first_id

    def require_free(self, poll_id: UUID) -> None:
        """Raises Conflict when the poll is in a post."""
        if self._database.rows(POSTS_OF_POLLS, {"poll_ids": [poll_id]}):
            raise errors.poll_in_use()

    def add_missing(self, accepted: Sequence[AcceptedPost], existing: Collection[str] | None = None) -> None:
        """Store those of these posts that are not there yet, and were not deleted.

        `existing` are the mentioned users who exist, or None if that is not known yet.
        """
        with self._database.transaction() as connection:
            accepted = _without_used_polls(connection, accepted)
            mentioned = {post.id: _mentioned(post, existing) for post in accepted}
            added = connection.execute(ADD_MISSING, [row_of(post, mentioned[post.id]) for post in accepted])
            ids = set(added.scalars())
            ids -= set(connection.execute(DELETE_REVIVED, {"ids": list(ids)}).scalars())
            new = [post for post in accepted if post.id in ids]
            told = [cause for post in new for cause in causes(post, mentioned[post.id] or ())]
            _enter(connection, new, told)

    def delete_expired_keys(self) -> None:
        """Delete some idempotency keys that are older than promised."""
        idempotency.delete_expired(self._database)

    def original_of(self, post_id: UUID) -> UUID:
        """The post itself, or the one that it reposts. Raises NotFound."""
        return self.original_and_author(post_id)[0]

    def original_and_author(self, post_id: UUID) -> tuple[UUID, str]:
        """The same, and who wrote it. Raises NotFound."""
        found = self._database.rows(ORIGINAL, {"id": post_id})
        if not found:
            raise errors.post_not_found()
        original: tuple[UUID, str] = found[0]
        return original

    def post(self, post_id: UUID, reader: str | None = None) -> Post:
        """Raises NotFound."""
        found = self.posts([post_id], reader)
        if not found:
            raise errors.post_not_found()
        return found[0]

    def posts(self, ids: Sequence[UUID], reader: str | None = None) -> list[Post]:
        """Those of these posts that there are, in this order."""
        found = {post.id: post for post in POSTS.run(self._database, reader, {"ids": list(ids)})}
        return [found[post_id] for post_id in ids if post_id in found]

    def newest(self, page: Page, reader: str | None = None) -> list[Post]:
        """Everybody's posts, but for reposts and unlisted ones."""
        return NEWEST.read(self._database, reader, page)

    def newest_by_user(
        self,
        username: str,
        page: Page,
        reader: str | None = None,
        *,
        with_replies: bool = True,
        with_reposts: bool = True,
    ) -> list[Post]:
        return NEWEST_BY_USER.read(
            self._database, reader, page, username=username, replies=with_replies, reposts=with_reposts
        )

    def newest_by_users(
        self, usernames: Sequence[str], page: Page, reader: str | None = None, hidden: Sequence[str] = ()
    ) -> list[Post]:
        """The posts and reposts of any of these users, without those whose author is hidden."""
        names = {"followees": array_of(usernames), "hidden": array_of(hidden)}
        if len(usernames) > FEW_FOLLOWEES:
            found = FROM_RECENT.read(self._database, reader, page, **names)
            if len(found) == page.limit:
                return found
        return BY_FOLLOWEE.read(self._database, reader, page, **names)

    def counts(self, usernames: Sequence[str]) -> list[PostCounts]:
        """One for each of these users, in this order."""
        rows = self._database.rows(COUNTS, {"usernames": list(usernames)})
        return [
            PostCounts(username=username, posts_count=count, last_posted_at=last)
            for username, count, last in rows
        ]


def _without_used_polls(connection: Connection, accepted: Sequence[AcceptedPost]) -> list[AcceptedPost]:
    """These posts. Of two that were accepted with one poll, the later one has only its text."""
    wanted = [post.poll_id for post in accepted if post.poll_id]
    if not wanted:
        return list(accepted)
    rows = connection.execute(POSTS_OF_POLLS, {"poll_ids": wanted})
    posts_of: dict[UUID, UUID] = {row.poll_id: row.id for row in rows}
    return [
        post.model_copy(update={"poll_id": None})
        if post.poll_id and posts_of.setdefault(post.poll_id, post.id) != post.id
        else post
        for post in accepted
    ]


def _mentioned(post: AcceptedPost, existing: Collection[str] | None) -> list[str] | None:
    names = mentions(post.text)
    return None if names and existing is None else [name for name in names if name in (existing or ())]


def _enter(connection: Connection, added: Sequence[AcceptedPost], told: Sequence[Cause] = ()) -> None:
    """Let other posts, their authors and tags know of these new ones, and those who are told of more."""
    add_tags(connection, [post.id for post in added if "#" in post.text])
    tell(connection, *_count_replies(connection, added), *told)


def _count_replies(connection: Connection, added: Sequence[AcceptedPost]) -> Iterator[Cause]:
    # Newest first, as deletions lock them: two transactions that lock the same posts cannot deadlock.
    replies = [(post.in_reply_to, post) for post in added if post.in_reply_to]
    for parent, reply in sorted(replies, key=itemgetter(0), reverse=True):
        author = connection.execute(COUNT_REPLY, {"in_reply_to": parent}).scalar_one_or_none()
        if author:
            yield Cause("reply", author, reply.username, post_id=reply.id)


def row_of(post: AcceptedPost, mentioned: Sequence[str] | None) -> dict[str, Any]:
    """The values of ADD for a new post; `mentioned` as in `TimelinesStore.add`."""
    return {
        "id": post.id,
        "username": post.username,
        "text": post.text,
        "created_at": post.created_at,
        "in_reply_to": post.in_reply_to,
        "warning": post.warning,
        "is_unlisted": post.visibility == "unlisted",
        "tags": hashtags(post.text),
        "is_parsed": True,
        "poll_id": post.poll_id,
        "mentions": list(mentioned or ()),
        "is_resolved": mentioned is not None,
        "words": document(post.text, post.id) if post.visibility == "public" else None,
    }


def as_written(post: AcceptedPost, row: dict[str, Any]) -> Post:
    """As the statements read a post that was added just now."""
    return Post(**dict(post) | {"tags": row["tags"], "mentions": row["mentions"]})
