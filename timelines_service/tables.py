"""The timelines service's tables; Alembic's migrations make them."""

from sqlalchemy import (
    ARRAY,
    DDL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    event,
    false,
    func,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import TSVECTOR

from common.postgres.outbox import outbox_table
from timelines_service import triggers
from timelines_service.word_indexes import DENSE, SPARSE, TIMES

metadata = MetaData()

# Names are compared byte by byte: a home timeline compares thousands of them.
NAME = Text(collation="C")

# `rights` are what the store needs on a table: the service is unhealthy without them.
# A repost is a row too, with an id of its own: so every list and cursor serves reposts. Its text is what the
# original said then, for instances of the last version; the new ones read the original.
posts = Table(
    "posts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", NAME, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("in_reply_to", Uuid),
    Column("repost_of", Uuid),
    # Of a repost only. A home timeline compares it without reading the original.
    Column("original_author", NAME),
    Column("replies", Integer, nullable=False, server_default="0"),
    Column("reposts", Integer, nullable=False, server_default="0"),
    Column("edited_at", DateTime(timezone=True)),
    Column("warning", Text),
    Column("is_unlisted", Boolean, nullable=False, server_default=false()),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("mentions", ARRAY(Text), nullable=False, server_default="{}"),
    Column("poll_id", Uuid),
    # False in posts of the last version: the worker finds their tags.
    Column("is_parsed", Boolean, nullable=False, server_default=false()),
    # False until it is known which of those whom the text mentions exist: the worker asks.
    Column("is_resolved", Boolean, nullable=False, server_default=false()),
    # What a search finds the post by; NULL where it finds none: in reposts, unlisted posts, and those of the
    # last version until the worker has found their words.
    Column("words", TSVECTOR),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)
# A user's posts, newest first; a home timeline looks at nothing else to find its page.
Index(
    "posts_by_user",
    posts.c.username,
    posts.c.id.desc(),
    postgresql_include=["repost_of", "original_author"],
)
Index("posts_replies", posts.c.in_reply_to, posts.c.id, postgresql_where=posts.c.in_reply_to.is_not(None))
Index(
    "posts_one_repost",
    posts.c.repost_of,
    posts.c.username,
    unique=True,
    postgresql_where=posts.c.repost_of.is_not(None),
)
Index("posts_reposts", posts.c.repost_of, posts.c.id, postgresql_where=posts.c.repost_of.is_not(None))

Index("posts_one_poll", posts.c.poll_id, unique=True, postgresql_where=posts.c.poll_id.is_not(None))

Index("posts_unparsed", posts.c.id, postgresql_where=text("NOT is_parsed AND text LIKE '%#%'"))

Index(
    "posts_unresolved",
    posts.c.id,
    postgresql_where=text("NOT is_resolved AND repost_of IS NULL AND text LIKE '%@%'"),
)

# Without the list of new entries that PostgreSQL would keep: each search would read all of it. The times come
# first, so that a search begins at its own.
for name, condition in (
    ("posts_words_by_time", "words IS NOT NULL"),
    ("posts_words_in_256", f"words IS NOT NULL AND {DENSE}"),
    ("posts_words_in_4096", f"words IS NOT NULL AND {SPARSE}"),
):
    Index(
        name,
        text(TIMES),
        posts.c.words,
        postgresql_using="gin",
        postgresql_where=text(condition),
        postgresql_with={"fastupdate": "off"},
    )
Index(
    "posts_unindexed",
    posts.c.id,
    postgresql_where=text("words IS NULL AND repost_of IS NULL AND NOT is_unlisted"),
)

# By the user first: a tag of one user's is a key's prefix.
post_tags = Table(
    "post_tags",
    metadata,
    Column("username", NAME, primary_key=True),
    Column("tag", NAME, primary_key=True),
    Column("post_id", Uuid, primary_key=True),
    Column("is_unlisted", Boolean, nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)
Index(
    "post_tags_listed",
    post_tags.c.tag,
    post_tags.c.post_id.desc(),
    postgresql_where=text("NOT is_unlisted"),
)
Index(
    "post_tags_newest",
    post_tags.c.post_id,
    postgresql_where=text("NOT is_unlisted"),
    postgresql_include=["tag"],
)

post_versions = Table(
    "post_versions",
    metadata,
    Column("post_id", Uuid, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("text", Text, nullable=False),
    # When this text was written.
    Column("created_at", DateTime(timezone=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)

# What was deleted stays deleted, also when its job comes again. The worker sweeps away what is left of it.
deleted_posts = Table(
    "deleted_posts",
    metadata,
    Column("post_id", Uuid, primary_key=True),
    Column("deleted_at", DateTime(timezone=True), nullable=False),
    Column("is_swept", Boolean, nullable=False, server_default=false()),
    info={"rights": ["SELECT", "INSERT", "UPDATE"]},
)
Index(
    "deleted_posts_unswept",
    deleted_posts.c.deleted_at,
    postgresql_where=deleted_posts.c.is_swept.is_(False),
)

# Users who were deleted: nothing of theirs is shown or stored. The worker sweeps away what they have left.
deleted_users = Table(
    "deleted_users",
    metadata,
    Column("username", NAME, primary_key=True),
    Column("deleted_at", DateTime(timezone=True), nullable=False),
    # When nothing was left for the first time, and when nothing could come any more.
    Column("swept_at", DateTime(timezone=True)),
    Column("cleared_at", DateTime(timezone=True)),
    info={"rights": ["SELECT", "INSERT", "UPDATE"]},
)
# Every statement that shows posts reads it: mostly it is empty.
Index(
    "deleted_users_uncleared",
    deleted_users.c.username,
    postgresql_where=deleted_users.c.cleared_at.is_(None),
)

# The id says when the mark was made: lists of marks page by it.
bookmarks = Table(
    "bookmarks",
    metadata,
    Column("post_id", Uuid, primary_key=True),
    Column("username", NAME, primary_key=True),
    Column("id", Uuid, nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)
Index("bookmarks_newest", bookmarks.c.username, bookmarks.c.id.desc())

pins = Table(
    "pins",
    metadata,
    Column("username", NAME, primary_key=True),
    Column("post_id", Uuid, primary_key=True),
    Column("id", Uuid, nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)

# What users are told, at most once for each of the four columns of notifications_once. What was withdrawn
# stays for a while, as a tombstone: an event that comes late must not bring it back.
notifications = Table(
    "notifications",
    metadata,
    # Says when the recipient was told: the inbox pages by it.
    Column("id", Uuid, primary_key=True),
    Column("recipient", NAME, nullable=False),
    Column("kind", Text, nullable=False),
    Column("actor", NAME, nullable=False),
    # The post or the poll that it is about; NOTHING where it is about neither.
    Column("subject_id", Uuid, nullable=False),
    Column("post_id", Uuid),
    # When the last change of its cause happened that was applied.
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("is_withdrawn", Boolean, nullable=False, server_default=false()),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)
Index(
    "notifications_once",
    notifications.c.recipient,
    notifications.c.kind,
    notifications.c.actor,
    notifications.c.subject_id,
    unique=True,
)
# A page of all kinds, or of some; what is hidden is skipped in the index.
SHOWN = ["is_withdrawn", "actor", "post_id"]
Index(
    "notifications_newest",
    notifications.c.recipient,
    notifications.c.id.desc(),
    postgresql_include=SHOWN,
)
Index(
    "notifications_by_kind",
    notifications.c.recipient,
    notifications.c.kind,
    notifications.c.id.desc(),
    postgresql_include=SHOWN,
)
Index("notifications_of_post", notifications.c.post_id, postgresql_where=notifications.c.post_id.is_not(None))
Index("notifications_of_actor", notifications.c.actor)
Index("notifications_withdrawn", notifications.c.id, postgresql_where=notifications.c.is_withdrawn)

# Up to where a recipient has read: not a mark on each, of which there may be half a million.
notification_reads = Table(
    "notification_reads",
    metadata,
    Column("recipient", NAME, primary_key=True),
    Column("up_to", Uuid, nullable=False),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)

# Events that are not in their tubes yet.
outbox = outbox_table("timelines_outbox", metadata)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("username", NAME, primary_key=True),
    Column("key", Text, primary_key=True),
    # The hash of what was posted: the same key with something else is a client's mistake.
    Column("fingerprint", Text, nullable=False),
    Column("post_id", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)
Index("idempotency_keys_oldest", idempotency_keys.c.created_at)

# What live streams bring, for a quarter of an hour: triggers write it.
stream_events = Table(
    "stream_events",
    metadata,
    # The transaction that wrote it: PostgreSQL says of each whether a reader has seen its commit.
    Column(
        "xid",
        BigInteger,
        primary_key=True,
        server_default=text("CAST(CAST(pg_current_xact_id() AS text) AS bigint)"),
    ),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    # The post or the notification, and its author or actor.
    Column("item_id", Uuid, nullable=False),
    Column("username", NAME, nullable=False),
    Column("repost_of", Uuid),
    Column("original_author", NAME),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("is_unlisted", Boolean, nullable=False, server_default=false()),
    # Of a notification.
    Column("recipient", NAME),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)

for name, statements in (*triggers.LOG.items(), *triggers.REFUSE.items()):
    event.listen(metadata.tables[name], "after_create", DDL(statements))  # type: ignore[no-untyped-call]  # SQLAlchemy's own
