"""The users service's tables; Alembic's migrations make them."""

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    event,
    func,
)

from common.postgres.outbox import outbox_table
from users_service import triggers

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
    # So does every block and mute that the user makes, and every block of the user.
    Column("followees_version", BigInteger, nullable=False, server_default="0"),
    # Set by the trigger users_identified for an instance of the last version, which knows no ids.
    Column("id", Uuid, nullable=False),
    Column("display_name", Text),  # NULL: the username
    Column("mail_notifications", Boolean, nullable=False, server_default="true"),
    # Kept by the trigger follows_counted.
    Column("followers", Integer, nullable=False, server_default="0"),
    # The claim `gen` of the user's tokens; those with a smaller one are refused.
    Column("token_generation", Integer, nullable=False, server_default="0"),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)
Index("users_id_key", users.c.id, unique=True)
Index("users_email_key", func.lower(users.c.email), unique=True)

# No foreign keys here: what a deleted user leaves is swept away after the user's row. Whatever adds a row
# locks both users first.
follows = Table(
    "follows",
    metadata,
    Column("follower", Text, primary_key=True),
    Column("followee", Text, primary_key=True),
    Column("position", BigInteger, Identity(always=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)
# The list of followees, newest first, without a look at the table.
Index("follows_newest", follows.c.follower, follows.c.position.desc(), postgresql_include=["followee"])
# The list of followers, likewise.
Index("follows_followers", follows.c.followee, follows.c.position.desc(), postgresql_include=["follower"])


def _marks(name: str) -> Table:
    """Whom users have marked: one row a pair, listed as follows are."""
    table = Table(
        name,
        metadata,
        Column("owner", Text, primary_key=True),
        Column("subject", Text, primary_key=True),
        Column("position", BigInteger, Identity(always=True), nullable=False),
        info={"rights": ["SELECT", "INSERT", "DELETE"]},
    )
    Index(f"{name}_newest", table.c.owner, table.c.position.desc(), postgresql_include=["subject"])
    return table


blocks = _marks("blocks")
mutes = _marks("mutes")
Index("blocks_of", blocks.c.subject, postgresql_include=["owner"])
Index("mutes_of", mutes.c.subject, postgresql_include=["owner"])

# The words by which a user is found. In the order of bytes, all words with a prefix stand together.
user_words = Table(
    "user_words",
    metadata,
    Column(
        "username",
        Text,
        ForeignKey("users.username", name="user_words_username_fkey", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("word", Text(collation="C"), primary_key=True),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)
Index("user_words_sorted", user_words.c.word, user_words.c.username)

# Tokens that are refused before they expire: one token, or all of a user of an earlier generation.
revocations = Table(
    "revocations",
    metadata,
    Column("position", BigInteger, Identity(always=True), primary_key=True),
    Column("username", Text, nullable=False),
    Column("jti", Text),
    Column("generation", Integer, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "DELETE"]},
)

# The tombstones of deleted accounts: their names are never given again.
deletions = Table(
    "deletions",
    metadata,
    Column("username", Text, primary_key=True),
    Column("requested_at", DateTime(timezone=True), nullable=False),
    # The token by which it was requested: the last one that is good for anything.
    Column("last_jti", Text, nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    info={"rights": ["SELECT", "INSERT", "UPDATE"]},
)

# The services that have yet to confirm that they have nothing of a deleted account; `users` is this one.
deletion_steps = Table(
    "deletion_steps",
    metadata,
    Column("username", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    # When the service is told again.
    Column("ask_at", DateTime(timezone=True), nullable=False),
    info={"rights": ["SELECT", "INSERT", "UPDATE", "DELETE"]},
)
# Profiles and lists of names look here for those whose follows are not swept away yet.
Index(
    "deletion_steps_own",
    deletion_steps.c.username,
    postgresql_where=deletion_steps.c.service == "users",
)

# Events that are not in their tubes yet.
outbox = outbox_table("users_outbox", metadata)

for table, texts in ((users, triggers.ON_USERS), (follows, triggers.ON_FOLLOWS)):
    for ddl in texts:
        event.listen(table, "after_create", DDL(ddl))  # type: ignore[no-untyped-call]  # SQLAlchemy's own
