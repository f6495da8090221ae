"""People, posts and follows for a benchmark, written as fast as PostgreSQL takes them."""

import io
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg2
from passlib.context import CryptContext
from psycopg2 import extensions

from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from users_service.passwords import ARGON2ID

PASSWORD = "correct horse battery"
TEXT = "What a day it was! The morning was grey, the train was late, and then the sun came out after all."
# Newer than these are the posts that a benchmark writes.
SECONDS_AGO = 3600

HASHER = CryptContext(["argon2"], **ARGON2ID)
TOKENS = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(hours=10))


def name(number: int) -> str:
    return f"user{number:06}"


def post_id(number: int, of: int) -> UUID:
    """The UUIDv7 of the nth post from the oldest, all of them written within some hours, an hour ago."""
    milliseconds = int((time.time() - SECONDS_AGO) * 1000) - (of - number) * 10
    return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | random.Random(number).getrandbits(62))


def copy(port: int, database: str, table: str, columns: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Fill a table by COPY, and let the planner know."""
    with _waiting(), closing(connect(port, database)) as connection, connection.cursor() as cursor:
        for lines in _chunks(rows):
            cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", lines)
        connection.commit()
        connection.autocommit = True
        cursor.execute(f"VACUUM ANALYZE {table}")


@contextmanager
def _waiting() -> Iterator[None]:
    """Let psycopg2 wait by itself: it cannot COPY in the way that our services have it wait."""
    ours = extensions.get_wait_callback()
    extensions.set_wait_callback(None)
    try:
        yield
    finally:
        extensions.set_wait_callback(ours)


def connect(port: int, database: str) -> Any:
    return psycopg2.connect(
        host="127.0.0.1", port=port, user="postgres", password="postgres", dbname=database
    )


def _chunks(rows: Iterable[tuple[object, ...]]) -> Iterator[io.StringIO]:
    lines: list[str] = []
    for row in rows:
        lines.append("\t".join(map(str, row)))
        if len(lines) == 50_000:
            yield io.StringIO("\n".join(lines))
            lines = []
    yield io.StringIO("\n".join(lines))


def users(port: int, names: Iterable[str], database: str = "microblog_users") -> None:
    """These users, all with one password, and an address each."""
    now = datetime.now(UTC).isoformat()
    hashed = HASHER.hash(PASSWORD)
    rows = ((name, hashed, f"{name}@example.com", "Reads, cooks, cycles.", now) for name in names)
    copy(port, database, "users", "username, password_hash, email, bio, created_at", rows)


def posts(port: int, authors: Iterable[str], count: int, database: str = "microblog_timelines") -> None:
    """The newest posts of these authors in turn, oldest first."""
    now = datetime.now(UTC).isoformat()
    rows = ((post_id(n, count), author, TEXT, now) for n, author in zip(range(count), authors, strict=False))
    copy(port, database, "posts", "id, username, text, created_at", rows)


def follows(port: int, pairs: Iterable[tuple[str, str]], database: str = "microblog_users") -> None:
    """Who follows whom; the counters follow."""
    copy(port, database, "follows", "follower, followee", pairs)
    with closing(connect(port, database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE users SET followees = counted.number, followees_version = counted.number FROM "
            "(SELECT follower, count(*) AS number FROM follows GROUP BY follower) AS counted "
            "WHERE username = follower"
        )
        connection.commit()
