"""The users service's tables; Alembic's migrations make them."""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
)

metadata = MetaData()

# `rights` are what the store needs on a table: the service is unhealthy without them.
users = Table(
    "users",
    metadata,
    Column("username", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("email", Text),
    Column("bio", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("followees", Integer, nullable=False, server_default="0"),
    # Counts the changes of the list of followees, so that an unchanged list is recognised without reading it.
    Column("followees_version", BigInteger, nullable=False, server_default="0"),
    info={"rights": ["SELECT", "INSERT", "UPDATE"]},
)
Index("users_email_key", func.lower(users.c.email), unique=True)

follows = Table(
    "follows",
    metadata,
    Column("follower", Text, ForeignKey("users.username", name="follows_follower_fkey"), primary_key=True),
    Column("followee", Text, ForeignKey("users.username", name="follows_followee_fkey"), primary_key=True),
    Column("position", BigInteger, Identity(always=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)
# The list of followees, newest first, without a look at the table.
Index("follows_newest", follows.c.follower, follows.c.position.desc(), postgresql_include=["followee"])
