"""Likes in Redis: who likes a post, what a user likes, which posts are popular, and the outbox."""

import heapq
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import compress
from typing import Any, Self
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from redis.retry import Retry
from redis.sentinel import Sentinel

from common.circuit_breaker import CircuitOpen
from common.errors import CannotServe, CredentialsRejected
from common.redis_url import ClusterUrl, connect, is_of_cluster
from common.tokens import invalid_token
from likes_service import errors, scripts
from likes_service.connection import Commands, RedisClient, Script
from likes_service.filled_cluster import FilledCluster
from likes_service.keys import DELETED_USERS, MAILED, Keys
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
from likes_service.user_lists import Like, UserLists

# One step takes Redis about a millisecond.
DELETE_STEP = 100
SCAN_STEP = 250
# The number of a master and a cursor there are one number.
MOST_MASTERS = 1000
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
    """Every verb is one command or one script, so its views never disagree. Threads may share it.

    In a cluster, a like is where its post is, and the user's list follows: in
    the same call, else when the outbox's entry is handled.
    """

    outages = (
        redis.ConnectionError, redis.TimeoutError, NoScriptError, CannotServe, CredentialsRejected,
        CircuitOpen,
    )  # fmt: skip

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._redis = client
        self._keys = keys
        self._lists = UserLists(client, keys) if keys.is_split else None
        self._counts = Script(scripts.COUNTS)
        self._page = Script(scripts.PAGE)
        self._below = Script(scripts.BELOW)
        self._pending = Script(scripts.PENDING if keys.is_split else scripts.REFUSE_MOVED + scripts.PENDING)
        self._ping = self._change(scripts.PING)
        self._like = self._change(scripts.LIKE)
        self._unlike = self._change(scripts.UNLIKE)
        self._undo = self._change(scripts.UNDO)
        self._complete = self._change(scripts.COMPLETE)
        self._complete_unlike = self._change(scripts.COMPLETE_UNLIKE)
        self._claim_overdue = self._change(scripts.CLAIM_OVERDUE)
        self._claim = self._change(scripts.CLAIM)
        self._release = self._change(scripts.RELEASE)
        self._delete_post = self._change(scripts.DELETE_POST)
        self._delete_user = self._change(scripts.DELETE_USER)
        self._forget_mails = self._change(scripts.FORGET_MAILS)
        self._forget_like = self._change(scripts.FORGET)

    @classmethod
    def connect(cls, url: str, threads: int = 1) -> Self:
        """Build the pool, without network activity."""
        # Nothing is sent twice: without a response, the store cannot know whether the script ran.
        options: dict[str, Any] = {
            "protocol": 2,
            "decode_responses": True,
            "max_connections": threads + SPARE_CONNECTIONS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": SOCKET_TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        if is_of_cluster(url):
            place = ClusterUrl.parse(url)
            return cls(FilledCluster(place.nodes, **place.options, **options), Keys(is_split=True))
        return cls(connect(RedisClient, Sentinel, url, **options), Keys(is_split=False))

    def ping(self) -> str | None:
        self._ping.run_all(self._redis, [([self._keys.popular(bucket)], ()) for bucket in self._keys.buckets])
        return self._data_risks()

    def close(self) -> None:
        self._redis.close()

    def like(self, post_id: UUID, username: str, at: datetime, due: datetime) -> LikeState:
        """Like a post, and add its validation to the outbox: overdue when it is not complete by `due`.

        Raises Unauthorized for a user who is deleted.
        """
        keys, bucket, since = self._keys, self._keys.bucket(post_id), microseconds(at)
        if self._lists:
            since = max(since, self._lists.newest(username) + 1)
        places = [
            keys.likers(post_id), keys.popular(bucket), keys.pending(bucket), keys.undone(post_id, username),
            *self._if_single(keys.liked(username), DELETED_USERS),
        ]  # fmt: skip
        found = self._run(self._like, places, [str(post_id), username, since, microseconds(due)])
        if found is None:
            raise invalid_token()
        changed, count, *liked_at = found
        # The like is recorded: if its user's list is out of reach, the outbox has what is left to do.
        with suppress(*self.outages):
            if changed and not self._is_listed(post_id, username, *liked_at):
                raise invalid_token()
        return LikeState(post_id=post_id, username=username, liked=True, changed=bool(changed), count=count)

    def unlike(self, post_id: UUID, username: str, due: datetime) -> tuple[LikeState, datetime | None]:
        """Take a like back, and its entry out of the outbox; also when that was, if there was a like.

        The unlike is then in an outbox of its own: overdue when it is not complete by `due`.
        """
        bucket = self._keys.bucket(post_id)
        places = [
            self._keys.likers(post_id), self._keys.popular(bucket), self._keys.undone(post_id, username),
            self._keys.pending(bucket), self._keys.unlikes(bucket),
            *self._if_single(self._keys.liked(username)),
        ]  # fmt: skip
        changed, count, *at = self._run(self._unlike, places, [str(post_id), username, microseconds(due)])
        state = LikeState(post_id=post_id, username=username, liked=False, changed=bool(changed), count=count)
        if not changed:
            return state, None
        # The unlike is recorded: as for a like.
        with suppress(*self.outages):
            self._unlist([(username, (post_id, int(*at) - 1))])
        return state, _moment(*at)

    def count(self, post_id: UUID) -> PostLikes:
        count: int = self._redis.execute_command("ZCARD", self._keys.likers(post_id))
        return PostLikes(post_id=post_id, count=count)

    def counts(self, post_ids: Sequence[UUID], username: str | None) -> list[PostLikesWithOwn]:
        """The likes of each of these posts, in this order; without a username, none is the user's own."""
        buckets: dict[int, list[UUID]] = {}
        for post_id in post_ids:
            buckets.setdefault(self._keys.bucket(post_id), []).append(post_id)
        calls = [([self._keys.likers(one) for one in posts], [username or ""]) for posts in buckets.values()]
        likes: dict[UUID, PostLikesWithOwn] = {}
        for posts, found in zip(buckets.values(), self._counts.run_all(self._redis, calls), strict=True):
            for post_id, count, liked in zip(posts, found[::2], found[1::2], strict=True):
                likes[post_id] = PostLikesWithOwn(post_id=post_id, count=count, liked=bool(liked))
        return [likes[post_id] for post_id in post_ids]

    def likers(
        self,
        post_id: UUID,
        limit: int,
        before: str | None = None,
        after: str | None = None,
        seen: str | None = None,
    ) -> list[Liker]:
        """Newest like first. `seen` is when the cursor's like was, in microseconds.

        Without it, raises BadRequest for a cursor that was not one of them in the last hour.
        """
        keys = [
            self._keys.likers(post_id),
            *(self._keys.undone(post_id, cursor) for cursor in (before, after)),
        ]
        return [
            Liker(username=username, liked_at=_moment(score))
            for username, score in self._scored(keys, limit, before, after, seen)
        ]

    def liked_by(
        self,
        username: str,
        limit: int,
        before: UUID | None = None,
        after: UUID | None = None,
        seen: str | None = None,
    ) -> list[LikedPost]:
        """As likers."""
        keys = [
            self._keys.liked(username),
            *(self._keys.undone_of(username, cursor) for cursor in (before, after)),
        ]
        return [
            LikedPost(post_id=UUID(post_id), liked_at=_moment(score))
            for post_id, score in self._scored(keys, limit, before, after, seen)
        ]

    def popular(self, limit: int, before: UUID | None, seen: str | None = None) -> list[PostLikes]:
        """Most liked first, ties newest first. `seen` is how many likes `before` had.

        Without it, raises BadRequest when `before` has none.
        """
        rankings = [self._keys.popular(bucket) for bucket in self._keys.buckets]
        score = (seen or self._rank(before)) if before else "+inf"
        calls = [([ranking], [limit, score, str(before or "")]) for ranking in rankings]
        found = self._below.run_all(self._redis, calls)
        places = [
            (int(count), post) for page in found for post, count in zip(page[::2], page[1::2], strict=True)
        ]
        return [PostLikes(post_id=UUID(post), count=count) for count, post in heapq.nlargest(limit, places)]

    def _rank(self, post_id: UUID) -> str:
        """What the ranking has a post by. Raises BadRequest for one without likes."""
        ranking = self._keys.popular(self._keys.bucket(post_id))
        score: str | None = self._redis.execute_command("ZSCORE", ranking, str(post_id))
        if score is None:
            raise errors.unknown_cursor(str(post_id))
        return score

    def pending(self, post_id: UUID, username: str) -> OutboxEntry | None:
        """The outbox's entry for this like, when its user's list has it; None when it is complete."""
        keys = [
            self._keys.pending(self._keys.bucket(post_id)), self._keys.likers(post_id),
            self._keys.undone(post_id, username),
        ]  # fmt: skip
        found = self._run(self._pending, keys, [str(post_id), username])
        if found is None:
            return None
        liked_at, undone_at = found
        if liked_at and not self._is_listed(post_id, username, liked_at):
            return None
        if undone_at and not liked_at:
            self._unlist([(username, (post_id, undone_at))])
        return OutboxEntry(post_id, username, _moment(liked_at) if liked_at else None)

    def undo(self, pending: OutboxEntry) -> OutboxEntry | None:
        """Take this very like back: its entry now waits for the notification. None if it is gone already."""
        post_id, username, version = pending.post_id, pending.username, _version(pending)
        keys = [
            self._keys.likers(post_id), self._keys.popular(self._keys.bucket(post_id)),
            self._keys.undone(post_id, username), *self._if_single(self._keys.liked(username)),
        ]  # fmt: skip
        if not self._run(self._undo, keys, [str(post_id), username, version]):
            return None
        self._unlist([(username, (post_id, version))])
        return replace(pending, liked_at=None)

    def complete(self, pending: OutboxEntry) -> None:
        """Remove the entry, unless the user has changed their mind since: then there is a new one."""
        post_id = pending.post_id
        keys = [self._keys.pending(self._keys.bucket(post_id)), self._keys.likers(post_id)]
        self._run(self._complete, keys, [str(post_id), pending.username, _version(pending)])

    def complete_unlike(self, told: ValidateLike) -> None:
        """Remove the entry of an unlike of which its event tells, when its user's list does not have it."""
        assert told.unliked_at
        at = microseconds(told.unliked_at)
        self._unlist([(told.username, (told.post_id, at - 1))])
        unlikes = self._keys.unlikes(self._keys.bucket(told.post_id))
        self._run(self._complete_unlike, [unlikes], [f"{told.post_id} {told.username} {at}"])

    def claim_overdue(self, now: datetime, limit: int) -> list[ValidateLike]:
        """At most `limit` overdue likes and as many unlikes.

        Each is due again later, after a longer pause every time.
        """
        entries: list[str] = []
        at = microseconds(now)
        for bucket in self._buckets_due(at):
            keys = [self._keys.pending(bucket), self._keys.unlikes(bucket)]
            left = limit - len(entries)
            entries += self._run(self._claim_overdue, keys, [at, left, self._keys.likers_of(bucket)])
            if len(entries) >= limit:
                break
        return [
            ValidateLike(post_id=UUID(post_id), username=name, unliked_at=_moment(*at) if at else None)
            for post_id, name, *at in map(str.split, entries)
        ]

    def claim(self, notification: Notification, claimant: str) -> Claim:
        """Granted to this claimant, and to no other, while its like is there. The same claimant may claim
        again."""
        post_id = notification.post_id
        keys = [
            self._keys.likers(post_id), self._keys.mailed(post_id), self._keys.deleted(post_id),
            *self._if_single(DELETED_USERS),
        ]  # fmt: skip
        claim: Claim = self._run(self._claim, keys, [notification.kind, notification.username, claimant])
        # Afterwards: either this sees that the user is deleted, or the deletion finds the claim.
        if self._lists and self._lists.is_closed(notification.username):
            self.release(notification)
            return "unliked"
        return claim

    def release(self, notification: Notification) -> None:
        """It was not mailed after all."""
        field = f"{notification.kind} {notification.username}"
        self._run(self._release, [self._keys.mailed(notification.post_id)], [field])

    def delete_post(self, post_id: UUID) -> None:
        """Take the likes of a deleted post back, in steps; nothing is mailed about them any more."""
        keys, bucket = self._keys, self._keys.bucket(post_id)
        places = [
            keys.likers(post_id), keys.popular(bucket), keys.mailed(post_id), keys.pending(bucket),
            keys.deleted(post_id),
        ]  # fmt: skip
        found = None
        while found != []:
            found = list(self._scored([keys.likers(post_id)], DELETE_STEP))
            self._unlist([(username, (post_id, at)) for username, at in found])
            undone = [keys.undone(post_id, username) for username, _ in found]
            liked = self._if_single(*(keys.liked(username) for username, _ in found))
            likes = [word for like in found for word in like]
            self._run(self._delete_post, [*places, *undone, *liked], [str(post_id), *likes])

    def delete_user(self, username: str) -> None:
        """Take the likes of a deleted user back, in steps; there are no new ones any more."""
        if self._lists:
            self._lists.close(username)
        else:
            self._run(self._delete_user, [DELETED_USERS], [username])
        while found := list(self._scored([self._keys.liked(username)], DELETE_STEP)):
            self._forget(username, [UUID(post_id) for post_id, _ in found])
            self._unlist([(username, like) for like in found])

    def forget_mails(self, username: str, place: int) -> int:
        """Delete the claims of mails about likes that were taken back, to which no list leads.

        It reads all keys of each master in steps, from a place on: 0 is the beginning. The place where it
        goes on after some seconds; 0 is the end.
        """
        end = time.monotonic() + FORGET_SECONDS
        masters = self._redis.masters()
        cursor, number = divmod(place, MOST_MASTERS)
        while number < len(masters):
            cursor, mailed = masters[number].scan(cursor, f"{MAILED}*", SCAN_STEP)
            self._forget_claims(username, [str(key) for key in mailed])
            number += cursor == 0
            if number < len(masters) and time.monotonic() > end:
                return cursor * MOST_MASTERS + number
        return 0

    def _forget_claims(self, username: str, mailed: Sequence[str]) -> None:
        """Only where there are any: each key that is written to is copied again while likes move."""
        fields = (f"liked {username}", f"taken_back {username}")
        found = self._redis.execute_all([("HMGET", key, *fields) for key in mailed])
        has_claims = [isinstance(claims, redis.RedisError) or any(claims) for claims in found]
        stale = list(compress(mailed, has_claims))
        self._forget_mails.run_all(self._redis, [([key], [username]) for key in stale])

    def _buckets_due(self, at: int) -> Sequence[int]:
        """Those with entries that are due, in any order: each is first at times."""
        buckets = self._keys.buckets
        if not self._lists:
            return buckets
        outboxes = [
            outbox(bucket) for bucket in buckets for outbox in (self._keys.pending, self._keys.unlikes)
        ]
        due = self._redis.execute_all([("ZCOUNT", outbox, "-inf", at) for outbox in outboxes])
        found = [bucket for bucket in buckets if any(due[2 * bucket : 2 * bucket + 2])]
        return random.sample(found, len(found))

    def _change(self, text: str) -> Script:
        return Script(text if self._lists else scripts.NOTE_CHANGES + text)

    def _run(self, script: Script, keys: Sequence[str], values: Sequence[Any]) -> Any:
        return script.run(self._redis, keys, values)

    def _if_single(self, *keys: str) -> tuple[str, ...]:
        """What a script changes as well, unless it is in another slot."""
        return () if self._lists else keys

    def _is_listed(self, post_id: UUID, username: str, at: int | str) -> bool:
        """See that the user's list has a like. A user who is deleted has none: then the like goes."""
        if self._lists is None or self._lists.add(username, (post_id, at)):
            return True
        self._forget(username, [post_id])
        return False

    def _unlist(self, likes: Sequence[tuple[str, Like]]) -> None:
        """See that the users' lists do not have these likes."""
        if self._lists and likes:
            self._lists.remove(likes)

    def _forget(self, username: str, post_ids: Sequence[UUID]) -> None:
        """Take likes of a deleted user away, as if they had never been."""
        keys = self._keys
        calls = []
        for post_id in post_ids:
            bucket = keys.bucket(post_id)
            places = [
                keys.likers(post_id), keys.popular(bucket), keys.pending(bucket),
                keys.undone(post_id, username), keys.mailed(post_id), *self._if_single(keys.liked(username)),
            ]  # fmt: skip
            calls.append((places, [str(post_id), username]))
        self._forget_like.run_all(self._redis, calls)

    def _data_risks(self) -> str | None:
        try:
            settings = [master.info() for master in self._redis.masters()]
        except self.outages:
            return None  # A user without the right, or a proxy: likes work all the same.
        # Masters of a cluster that are set in one way have one risk.
        return "; ".join(dict.fromkeys(risk for info in settings for risk in _risks(info))) or None

    def _scored(
        self,
        keys: Sequence[str],
        limit: int,
        before: object = None,
        after: object = None,
        seen: str | None = None,
    ) -> Iterator[tuple[str, str]]:
        if not before and not after:
            keys = keys[:1]  # a page of one key can be had while its slot moves
        values = [limit, str(before or ""), str(after or ""), seen or ""]
        found: str | list[str] = self._run(self._page, keys, values)
        if isinstance(found, str):
            raise errors.unknown_cursor(found)
        return zip(found[::2], found[1::2], strict=True)


def _risks(info: Mapping[str, Any]) -> Iterator[str]:
    if (policy := info.get("maxmemory_policy", NO_EVICTION)) != NO_EVICTION:
        yield f"maxmemory-policy {policy} deletes likes when memory is full: set {NO_EVICTION}"
    if not info.get("aof_enabled", True):
        yield "without an append-only file, a restart loses likes: set appendonly yes"


def _version(pending: OutboxEntry) -> int | str:
    return microseconds(pending.liked_at) if pending.liked_at else ""


def microseconds(at: datetime) -> int:
    """A whole number, so that the moment given back is the moment kept."""
    return (at - EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int | str) -> datetime:
    return EPOCH + timedelta(microseconds=int(microseconds))
