"""Likes in Redis: who likes a post, what a user likes, which posts are popular, what is owed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.circuit_breaker import Breaker, Hung
from common.errors import BadRequest
from likes_service import scripts
from likes_service.models import LikedPost, LikeRecorded, Liking, Notice, Owed, PostLikes

LIKERS = "likes:post:"
LIKED = "likes:user:"
MAILED = "likes:mailed:"
POPULAR = "likes:popular"
OWED = "likes:owed"

# Both together: who asks learns within two seconds that there is no answer.
CONNECT_SECONDS = 0.8
ANSWER_SECONDS = 1.0
# For those who are not in the way of requests: the health check, and what prepares.
SPARE_CONNECTIONS = 4

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Redis answers, but cannot do its work now: full, failing over, writing nothing to its disk, or busy.
NOT_NOW = re.compile(r"\b(OOM|MISCONF|READONLY|NOREPLICAS|MASTERDOWN|BUSY)\b")


class Unready(Exception):
    """Redis is there, but cannot do this now."""


class _Client(redis.Redis):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._breaker = Breaker("Redis")

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self._breaker.check()
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's own
        except redis.TimeoutError:
            self._breaker.trip()
            raise
        except redis.ResponseError as exc:
            if NOT_NOW.search(f"{exc.status_code} {exc}"):
                raise Unready(str(exc)) from exc
            raise


class LikesStore:
    """Every verb is one command or one script, so its views never disagree. Threads may share it."""

    outages = (redis.ConnectionError, redis.TimeoutError, Unready, Hung)

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._like = client.register_script(scripts.LIKE)
        self._unlike = client.register_script(scripts.UNLIKE)
        self._page = client.register_script(scripts.PAGE)
        self._owed = client.register_script(scripts.OWED)
        self._take_back = client.register_script(scripts.TAKE_BACK)
        self._settle = client.register_script(scripts.SETTLE)
        self._take_overdue = client.register_script(scripts.TAKE_OVERDUE)
        self._claim = client.register_script(scripts.CLAIM)

    @classmethod
    def connect(cls, url: str, threads: int = 1) -> Self:
        """Build the pool, without network activity."""
        # Nothing is sent twice: who lost the answer to a script cannot know whether it ran.
        return cls(
            _Client.from_url(
                url,
                protocol=2,
                decode_responses=True,
                max_connections=threads + SPARE_CONNECTIONS,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        )

    def prepare(self) -> None:
        """Keys make themselves."""

    def ping(self) -> None:
        self._redis.ping()

    def close(self) -> None:
        self._redis.close()

    def like(self, post_id: UUID, username: str, at: datetime, due: datetime) -> Liking:
        """Like a post. Its validation is owed from now on, and overdue when it is not settled by `due`."""
        keys = [*_keys(post_id, username), POPULAR, OWED]
        changed, count = self._like(keys, [str(post_id), username, _microseconds(at), _microseconds(due)])
        return Liking(post_id=post_id, username=username, liked=True, changed=bool(changed), count=count)

    def unlike(self, post_id: UUID, username: str) -> Liking:
        """Take a like back; what was owed for it is owed no more."""
        keys = [*_keys(post_id, username), POPULAR, OWED]
        changed, count = self._unlike(keys, [str(post_id), username])
        return Liking(post_id=post_id, username=username, liked=False, changed=bool(changed), count=count)

    def count(self, post_id: UUID) -> PostLikes:
        return PostLikes(post_id=post_id, count=self._redis.zcard(_likers(post_id)))

    def liked_by(self, username: str, limit: int, before: UUID | None) -> list[LikedPost]:
        """Newest like first. Raises BadRequest when `before` is not one of them."""
        return [
            LikedPost(post_id=post_id, liked_at=_moment(score))
            for post_id, score in self._scored(_liked(username), limit, before)
        ]

    def popular(self, limit: int, before: UUID | None) -> list[PostLikes]:
        """Most liked first, ties newest first. Raises BadRequest when nobody likes `before`."""
        return [
            PostLikes(post_id=post_id, count=score) for post_id, score in self._scored(POPULAR, limit, before)
        ]

    def owed(self, post_id: UUID, username: str) -> Owed | None:
        """What is owed to this like; None when all is settled."""
        owed = self._owed([OWED, _likers(post_id)], [str(post_id), username])
        if owed is None:
            return None
        liked_at = _moment(owed) if owed else None
        return Owed(post_id=post_id, username=username, liked_at=liked_at)

    def take_back(self, owed: Owed) -> Owed | None:
        """Take this very like back, and owe its liker word of it instead. None if it is gone already."""
        keys = [*_keys(owed.post_id, owed.username), POPULAR]
        is_taken = self._take_back(keys, [str(owed.post_id), owed.username, _version(owed)])
        return replace(owed, liked_at=None) if is_taken else None

    def settle(self, owed: Owed) -> None:
        """What was owed is done, unless the user has changed their mind since: then it is owed anew."""
        self._settle([OWED, _likers(owed.post_id)], [str(owed.post_id), owed.username, _version(owed)])

    def take_overdue(self, now: datetime, limit: int) -> list[LikeRecorded]:
        """At most `limit` overdue likes; each is due again later, after a longer pause every time."""
        pairs = self._take_overdue([OWED], [_microseconds(now), limit, LIKERS])
        return [
            LikeRecorded(post_id=post_id, username=username) for post_id, username in map(str.split, pairs)
        ]

    def claim(self, notice: Notice, claimant: str) -> bool:
        """Whether it may be mailed, by this claimant alone, however often it asks: nobody else has claimed
        it before, and the like it tells of is there."""
        keys = [_likers(notice.post_id), _mailed(notice.post_id)]
        return bool(self._claim(keys, [notice.kind, notice.username, claimant]))

    def release(self, notice: Notice) -> None:
        """It was not mailed after all."""
        self._redis.hdel(_mailed(notice.post_id), f"{notice.kind} {notice.username}")

    def _scored(self, key: str, limit: int, before: UUID | None) -> Iterator[tuple[UUID, int]]:
        found: Sequence[str] | None = self._page([key], [limit, str(before or "")])
        if found is None:
            raise BadRequest("unknown_cursor", f"{before} is not on this list any more.")
        for post_id, score in zip(found[::2], found[1::2], strict=True):
            yield UUID(post_id), int(score)


def _likers(post_id: UUID) -> str:
    return f"{LIKERS}{post_id}"


def _liked(username: str) -> str:
    return f"{LIKED}{username}"


def _mailed(post_id: UUID) -> str:
    return f"{MAILED}{post_id}"


def _keys(post_id: UUID, username: str) -> tuple[str, str]:
    return _likers(post_id), _liked(username)


def _version(owed: Owed) -> int | str:
    return _microseconds(owed.liked_at) if owed.liked_at else ""


def _microseconds(at: datetime) -> int:
    """A whole number, so that the moment given back is the moment kept."""
    return (at - EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int | str) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds))
