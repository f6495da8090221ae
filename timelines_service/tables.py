"""The timelines service's tables; Alembic's migrations make them."""

from sqlalchemy import Column, DateTime, Index, MetaData, Table, Text, Uuid

metadata = MetaData()

# Names are compared byte by byte: a home timeline compares thousands of them.
NAME = Text(collation="C")

# `rights` are what the store needs on a table: the service is unhealthy without them.
posts = Table(
    "posts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("username", NAME, nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    info={"rights": ["SELECT", "INSERT"]},
)
# A user's posts, newest first; a home timeline looks at nothing else to find its page.
Index("posts_newest", posts.c.username, posts.c.id.desc())

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("username", NAME, primary_key=True),
    Column("key", Text, primary_key=True),
    # The hash of the post's text: the same key with another text is a client's mistake.
    Column("fingerprint", Text, nullable=False),
    Column("post_id", Uuid, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)
Index("idempotency_keys_oldest", idempotency_keys.c.created_at)
