"""What each service is measured against: a FastAPI `def` route on the bare driver, with the same models.

Each has the token check, the statement or script, and the answer of ours, and nothing else: no request id, no
problem details, no health, no time limits.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID, uuid4
from zlib import crc32

import boto3
import httpx
import psycopg2.extras
import redis
from anyio import to_thread
from botocore.config import Config
from fastapi import Depends, FastAPI, Header, HTTPException
from jose import JOSEError, jwt
from psycopg2.pool import ThreadedConnectionPool
from sqlalchemy.dialects.postgresql.psycopg2 import dialect as psycopg2_dialect

from common.fields import new_id
from common.settings import DEFAULT_JWT_SECRET
from likes_service.models import LikeState
from likes_service.scripts import LIKE
from polls_service.models import NewVote, Vote
from timelines_service.home_timelines import BY_FOLLOWEE, FEW_FOLLOWEES, FROM_RECENT
from timelines_service.models import AcceptedPost, NewPost, Post
from timelines_service.post_query import LAST_ID, shown
from timelines_service.store import ADD, NEWEST, NEWEST_BY_USER, POSTS, as_written, row_of
from users_service.models import ProfileForOther
from users_service.store import PROFILE_FOR_OTHER, read_for_other

THREADS = 8
CLAIMS = {"require_sub": True, "require_iat": True, "require_exp": True, "require_jti": True}


async def token_user(authorization: Annotated[str, Header()]) -> str:
    try:
        claims = jwt.decode(authorization.removeprefix("Bearer "), DEFAULT_JWT_SECRET, ["HS256"], CLAIMS)
    except JOSEError as exc:
        raise HTTPException(401) from exc
    return str(claims["sub"])


User = Annotated[str, Depends(token_user)]


class Postgres:
    """A bare pool, without a limit on any time."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadedConnectionPool(
            THREADS,
            THREADS,
            host="127.0.0.1",
            port=int(os.environ["DB_PORT"]),
            user="postgres",
            password="postgres",
            dbname=name,
        )
        psycopg2.extras.register_uuid()  # type: ignore[no-untyped-call]  # psycopg2's stubs

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        connection = self._pool.getconn()
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            self._pool.putconn(connection)

    def rows(self, statement: str, values: dict[str, Any]) -> list[Any]:
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall()) if cursor.description else []


def app(build: Callable[[FastAPI], None]) -> FastAPI:
    """An app that is put together when it starts, as its servers are known then."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        # As many threads as ours has: more take turns on the interpreter, and longer.
        to_thread.current_default_thread_limiter().total_tokens = THREADS
        build(app)
        yield

    return FastAPI(lifespan=life)


def _build_timelines(app: FastAPI) -> None:
    database = Postgres("microblog_timelines")
    users = httpx.Client(base_url=os.environ.get("USERS_URL", ""))
    one, everybodys, of_one = (_sql(query.statement) for query in (POSTS, NEWEST.older, NEWEST_BY_USER.older))
    add = _sql(ADD)

    def page(statement: str, limit: int, **values: object) -> list[Post]:
        rows = database.rows(statement, {"cursor": LAST_ID, "limit": limit + 1, **values})
        return [shown(row[1:]) for row in rows][:limit]

    @app.get("/posts/id/{post_id}")
    def post(post_id: UUID) -> Post:
        found = database.rows(one, {"ids": [post_id]})
        if not found:
            raise HTTPException(404)
        return shown(found[0])

    @app.get("/posts")
    def newest(limit: int = 20) -> list[Post]:
        return page(everybodys, limit)

    @app.get("/posts/home/{username}")
    def home(username: str, reader: User, limit: int = 20) -> list[Post]:
        names = users.get(f"/users/{username}/followees", params={"limit": 7500}).json()
        posts = FROM_RECENT if len(names) > FEW_FOLLOWEES else BY_FOLLOWEE
        return page(_sql(posts.older.statement), limit, followees=names, hidden=[])

    @app.get("/posts/{username}")
    def of_user(username: str, limit: int = 20) -> list[Post]:
        return page(of_one, limit, username=username, replies=True, reposts=True)

    @app.post("/posts", status_code=201)
    def write(new: NewPost, username: User) -> Post:
        post = AcceptedPost(id=new_id(), username=username, text=new.text, created_at=datetime.now(UTC))
        row = row_of(post, [])
        database.rows(add, row)
        return as_written(post, row)


def _sql(statement: Any) -> str:
    return str(statement.compile(dialect=psycopg2_dialect()))  # type: ignore[no-untyped-call]  # SQLAlchemy's own


def _build_users(app: FastAPI) -> None:
    database = Postgres("microblog_users")
    statement = _sql(PROFILE_FOR_OTHER)

    @app.get("/users/{username}")
    def profile(username: str, reader: User) -> ProfileForOther:
        found = database.rows(statement, {"name": username, "reader": reader})
        if not found:
            raise HTTPException(404)
        return read_for_other(found[0])


def _build_likes(app: FastAPI) -> None:
    client = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    script = client.register_script(LIKE)

    @app.post("/likes/{post_id}", status_code=201)
    def like(post_id: UUID, username: User) -> LikeState:
        likers, liked = f"likes:post:{post_id}", f"likes:user:{username}"
        undone = f"likes:undone:{post_id}:{username}"
        keys = [likers, "likes:popular", "likes:owed", undone, liked, "likes:deleted_users"]
        now = time.time_ns() // 1000
        changed, count, *_ = script(keys, [str(post_id), username, now, now + 30_000_000])
        return LikeState(post_id=post_id, username=username, liked=True, changed=bool(changed), count=count)


def _build_polls(app: FastAPI) -> None:
    table = os.environ.get("DYNAMODB_POLLS_TABLE", "Polls")
    dynamodb = boto3.client(
        "dynamodb",
        endpoint_url=os.environ["DYNAMODB_URL"],
        region_name="us-east-1",
        aws_access_key_id="dummy",
        aws_secret_access_key="dummy",
        config=Config(max_pool_connections=THREADS),
    )

    @app.post("/polls/{poll_id}/vote", status_code=201)
    def vote(poll_id: UUID, choice: NewVote, username: User) -> Vote:
        shard = {"S": f"{poll_id}#{crc32(username.encode()) % 10}"}
        put: Any = {
            "TableName": table,
            "Item": {"pk": shard, "sk": {"S": f"vote#{username}"}, "option": {"N": str(choice.option)}},
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        count: Any = {
            "TableName": table,
            "Key": {"pk": shard, "sk": {"S": "count"}},
            "UpdateExpression": "ADD #option :one",
            "ExpressionAttributeNames": {"#option": f"option{choice.option}"},
            "ExpressionAttributeValues": {":one": {"N": "1"}},
        }
        dynamodb.transact_write_items(
            TransactItems=[{"Put": put}, {"Update": count}], ClientRequestToken=str(uuid4())
        )
        return Vote(poll_id=poll_id, option=choice.option)


timelines = app(_build_timelines)
users = app(_build_users)
likes = app(_build_likes)
polls = app(_build_polls)
