"""Likes in Redis: who likes a post, what a user likes, which posts are popular, and the outbox."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Self
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry
from redis.sentinel import Sentinel

from common.circuit_breaker import CircuitOpen
from common.errors import CannotServe, CredentialsRejected
from common.redis_url import connect
from common.tokens import invalid_token
from likes_service import errors, scripts
from likes_service.connection import RedisClient
from likes_service.models import (
    Claim,
    LikedPost,
    Liker,
    LikeState,
    Notification,
    OutboxEntry,
    PostLikes,
    PostLikesWithOwn,
    ValidateLike,
)

LIKERS = "likes:post:"
LIKED = "likes:user:"
UNDONE = "likes:undone:"
MAILED = "likes:mailed:"
POPULAR = "likes:popular"
PENDING = "likes:owed"
UNLIKES = "likes:unlikes"
DELETED = "likes:deleted:"
DELETED_USERS = "likes:deleted_users"
# One step takes Redis about a millisecond.
DELETE_STEP = 100
SCAN_STEP = 250
# A job that takes longer goes on as a new one: other events have their turn.
FORGET_SECONDS = 2.0

# Both together: the caller learns within two seconds that there is no response.
CONNECT_SECONDS = 0.8
SOCKET_TIMEOUT_SECONDS = 1.0
# For the health check, beside the connections of requests.
SPARE_CONNECTIONS = 4

NO_EVICTION = "noeviction"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LikesStore:
    """Every verb is one command or one script, so its views never disagree. Threads may share it."""

    outages = (
        redis.ConnectionError, redis.TimeoutError, NoScriptError, CannotServe, CredentialsRejected,
        CircuitOpen,
    )  # fmt: skip

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._ping = client.register_script(scripts.PING)
        self._like = client.register_script(scripts.LIKE)
        self._unlike = client.register_script(scripts.UNLIKE)
        self._counts = client.register_script(scripts.COUNTS)
        self._page = client.register_script(scripts.PAGE)
        self._pending = client.register_script(scripts.PENDING)
        self._undo = client.register_script(scripts.UNDO)
        self._complete = client.register_script(scripts.COMPLETE)
        self._claim_overdue = client.register_script(scripts.CLAIM_OVERDUE)
        self._claim = client.register_script(scripts.CLAIM)
        self._delete_post = client.register_script(scripts.DELETE_POST)
        self._forget_mails = client.register_script(scripts.FORGET_MAILS)
        self._delete_user = client.register_script(scripts.DELETE_USER)

    @classmethod
    def connect(cls, url: str, threads: int = 1) -> Self:
        """Build the pool, without network activity."""
        # Nothing is sent twice: without a response, the store cannot know whether the script ran.
        return cls(
            connect(
                RedisClient,
                Sentinel,
                url,
                protocol=2,
                decode_responses=True,
                max_connections=threads + SPARE_CONNECTIONS,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=SOCKET_TIMEOUT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        )

    def ping(self) -> str | None:
        self._ping([POPULAR])
        return self._data_risks()

    def close(self) -> None:
        self._redis.close()

    def like(self, post_id: UUID, username: str, at: datetime, due: datetime) -> LikeState:
        """Like a post, and add its validation to the outbox: overdue when it is not complete by `due`.

        Raises Unauthorized for a user who is deleted.
        """
        keys = [*_keys(post_id, username), POPULAR, PENDING, _undone(post_id, username), DELETED_USERS]
        liked = self._like(keys, [str(post_id), username, _microseconds(at), _microseconds(due)])
        if liked is None:
            raise invalid_token()
        changed, count = liked
        return LikeState(post_id=post_id, username=username, liked=True, changed=bool(changed), count=count)

    def unlike(self, post_id: UUID, username: str, due: datetime) -> tuple[LikeState, datetime | None]:
        """Take a like back, and its entry out of the outbox; also when that was, if there was a like.

        The unlike is then in an outbox of its own: overdue when it is not complete by `due`.
        """
        keys = [*_keys(post_id, username), POPULAR, _undone(post_id, username), PENDING, UNLIKES]
        changed, count, *at = self._unlike(keys, [str(post_id), username, _microseconds(due)])
        state = LikeState(post_id=post_id, username=username, liked=False, changed=bool(changed), count=count)
        return state, _moment(*at) if changed else None

    def count(self, post_id: UUID) -> PostLikes:
        return PostLikes(post_id=post_id, count=self._redis.zcard(_likers(post_id)))

    def counts(self, post_ids: Sequence[UUID], username: str | None) -> list[PostLikesWithOwn]:
        """The likes of each of these posts, in this order; without a username, none is the user's own."""
        found = self._counts([_likers(post_id) for post_id in post_ids], [username or ""])
        return [
            PostLikesWithOwn(post_id=post_id, count=count, liked=bool(liked))
            for post_id, count, liked in zip(post_ids, found[::2], found[1::2], strict=True)
        ]

    def likers(
        self, post_id: UUID, limit: int, before: str | None = None, after: str | None = None
    ) -> list[Liker]:
        """Newest like first. Raises BadRequest for a cursor that was not one of them in the last hour."""
        keys = [_likers(post_id), _undone(post_id, before), _undone(post_id, after)]
        return [
            Liker(username=username, liked_at=_moment(score))
            for username, score in self._scored(keys, limit, before, after)
        ]

    def liked_by(
        self, username: str, limit: int, before: UUID | None = None, after: UUID | None = None
    ) -> list[LikedPost]:
        """Newest like first. Raises BadRequest for a cursor that was not one of them in the last hour."""
        keys = [_liked(username), _undone(before, username), _undone(after, username)]
        return [
            LikedPost(post_id=UUID(post_id), liked_at=_moment(score))
            for post_id, score in self._scored(keys, limit, before, after)
        ]

    def popular(self, limit: int, before: UUID | None) -> list[PostLikes]:
        """Most liked first, ties newest first. Raises BadRequest when `before` has no likes."""
        return [
            PostLikes(post_id=UUID(post_id), count=int(score))
            for post_id, score in self._scored([POPULAR], limit, before)
        ]

    def pending(self, post_id: UUID, username: str) -> OutboxEntry | None:
        """The outbox's entry for this like; None when it is complete."""
        pending = self._pending([PENDING, _likers(post_id)], [str(post_id), username])
        if pending is None:
            return None
        liked_at = _moment(pending) if pending else None
        return OutboxEntry(post_id=post_id, username=username, liked_at=liked_at)

    def undo(self, pending: OutboxEntry) -> OutboxEntry | None:
        """Take this very like back: its entry now waits for the notification. None if it is gone already."""
        keys = [*_keys(pending.post_id, pending.username), POPULAR]
        keys.append(_undone(pending.post_id, pending.username))
        is_taken = self._undo(keys, [str(pending.post_id), pending.username, _version(pending)])
        return replace(pending, liked_at=None) if is_taken else None

    def complete(self, pending: OutboxEntry) -> None:
        """Remove the entry, unless the user has changed their mind since: then there is a new one."""
        self._complete(
            [PENDING, _likers(pending.post_id)], [str(pending.post_id), pending.username, _version(pending)]
        )

    def complete_unlike(self, told: ValidateLike) -> None:
        """Remove the entry of an unlike of which its event tells."""
        assert told.unliked_at
        self._redis.zrem(UNLIKES, f"{told.post_id} {told.username} {_microseconds(told.unliked_at)}")

    def claim_overdue(self, now: datetime, limit: int) -> list[ValidateLike]:
        """At most `limit` overdue likes and as many unlikes.

        Each is due again later, after a longer pause every time.
        """
        entries = self._claim_overdue([PENDING, UNLIKES], [_microseconds(now), limit, LIKERS])
        return [
            ValidateLike(post_id=UUID(post_id), username=name, unliked_at=_moment(*at) if at else None)
            for post_id, name, *at in map(str.split, entries)
        ]

    def claim(self, notification: Notification, claimant: str) -> Claim:
        """Granted to this claimant, and to no other, while its like is there. The same claimant may claim
        again."""
        keys = [
            _likers(notification.post_id), _mailed(notification.post_id), _deleted(notification.post_id),
            DELETED_USERS,
        ]  # fmt: skip
        claim: Claim = self._claim(keys, [notification.kind, notification.username, claimant])
        return claim

    def release(self, notification: Notification) -> None:
        """It was not mailed after all."""
        self._redis.hdel(_mailed(notification.post_id), f"{notification.kind} {notification.username}")

    def delete_post(self, post_id: UUID) -> None:
        """Take the likes of a deleted post back, in steps; nothing is mailed about them any more."""
        keys = [_likers(post_id), POPULAR, _mailed(post_id), PENDING, _deleted(post_id)]
        while self._delete_post(keys, [str(post_id), DELETE_STEP, LIKED, UNDONE]) == DELETE_STEP:
            pass

    def delete_user(self, username: str) -> None:
        """Take the likes of a deleted user back, in steps; there are no new ones any more."""
        keys = [_liked(username), POPULAR, PENDING, DELETED_USERS]
        while self._delete_user(keys, [username, DELETE_STEP, LIKERS, MAILED, UNDONE]) == DELETE_STEP:
            pass

    def forget_mails(self, username: str, place: int) -> int:
        """Delete the claims of mails about likes that were taken back, to which no list leads.

        It reads all keys of Redis in steps, from a place on: 0 is the beginning. The place where it goes on
        after some seconds; 0 is the end.
        """
        end = time.monotonic() + FORGET_SECONDS
        while True:
            place, keys = self._redis.scan(place, f"{MAILED}*", SCAN_STEP)
            self._forget_mails(keys, [username])
            if place == 0 or time.monotonic() > end:
                return place

    def _data_risks(self) -> str | None:
        try:
            info = self._redis.info()
        except self.outages:
            return None  # A user without the right, or a proxy: likes work all the same.
        risks = []
        if (policy := info.get("maxmemory_policy", NO_EVICTION)) != NO_EVICTION:
            risks.append(f"maxmemory-policy {policy} deletes likes when memory is full: set {NO_EVICTION}")
        if not info.get("aof_enabled", True):
            risks.append("without an append-only file, a restart loses likes: set appendonly yes")
        return "; ".join(risks) or None

    def _scored(
        self, keys: list[str], limit: int, before: object, after: object = None
    ) -> Iterator[tuple[str, str]]:
        found: str | list[str] = self._page(keys, [limit, str(before or ""), str(after or "")])
        if isinstance(found, str):
            raise errors.unknown_cursor(found)
        return zip(found[::2], found[1::2], strict=True)


def _likers(post_id: UUID) -> str:
    return f"{LIKERS}{post_id}"


def _liked(username: str) -> str:
    return f"{LIKED}{username}"


def _undone(post_id: UUID | None, username: str | None) -> str:
    return f"{UNDONE}{post_id}:{username}"


def _mailed(post_id: UUID) -> str:
    return f"{MAILED}{post_id}"


def _deleted(post_id: UUID) -> str:
    return f"{DELETED}{post_id}"


def _keys(post_id: UUID, username: str) -> tuple[str, str]:
    return _likers(post_id), _liked(username)


def _version(pending: OutboxEntry) -> int | str:
    return _microseconds(pending.liked_at) if pending.liked_at else ""


def _microseconds(at: datetime) -> int:
    """A whole number, so that the moment given back is the moment kept."""
    return (at - EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int | str) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds))
