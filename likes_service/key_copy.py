"""Copies the likes of a single Redis into a cluster while they change, and hands over to it.

The scripts of the single Redis note which keys they change while there is a
copy. A key is copied whole, so it may be copied as often as it changes. When
few have changed, the scripts begin to refuse: what is left takes a moment. The
cluster refuses everything until then.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import Any, TypeVar
from uuid import UUID, uuid4

from likes_service import scripts
from likes_service.connection import Command, Commands, RedisClient, Script
from likes_service.keys import (
    CHANGED,
    CHANGING,
    COPY,
    COPY_ID,
    DELETED,
    DELETED_USERS,
    FILLED,
    FILLING,
    LIKED,
    LIKERS,
    MAILED,
    PENDING,
    UNDONE,
    UNLIKES,
    Keys,
)

BATCH = 500
# So many keys are copied in a moment.
FEW = 200
KEYS = Keys(is_split=True)

Item = TypeVar("Item")


class CopyRefused(Exception):
    """Nothing is copied; the message says why."""


class KeyCopy:
    """One at a time copies from a single Redis to a cluster. Both clients give bytes."""

    def __init__(self, source: RedisClient, target: Commands) -> None:
        self._source = source
        self._target = target
        self._rank = Script(scripts.RANK)

    def run(self) -> Iterator[int]:
        """Copy all there is, then what has changed; yields how many keys each step has copied.

        It may be broken off, and run again. Raises CopyRefused for a cluster with other likes in it.
        """
        if self._state() is None:
            self._begin()
        if self._is_over():
            return
        if self._state() == b"copying":
            for keys in _batches(self._source.scan_iter("likes:*", count=BATCH)):
                self._copy(keys)
                yield len(keys)
            self._source.set(COPY, "copied")
        last = inf
        # For as long as each step has less to do than the last.
        while FEW < (count := self._catch_up()) < last:
            yield count
            last = count

    def finish(self) -> None:
        """Hand over: the single Redis takes no changes from now on, and the cluster serves in a moment.

        It may be broken off, and run again. Raises CopyRefused before all is copied once.
        """
        if self._is_over():
            return
        if self._state() not in (b"copied", b"moved"):
            raise CopyRefused("not all is copied yet")
        self._source.set(COPY, "moved")
        while self._catch_up():
            pass
        self._copy_outbox(PENDING, KEYS.pending)
        self._copy_outbox(UNLIKES, KEYS.unlikes)
        for names in _batches(self._source.sscan_iter(DELETED_USERS, count=BATCH)):
            self._write([("SET", KEYS.deleted_user(name.decode()), 1) for name in names])
        self._target.execute_command("SET", FILLED, self._source.get(COPY_ID))
        self._target.execute_command("DEL", FILLING)

    def _state(self) -> Any:
        return self._source.get(COPY)

    def _is_over(self) -> bool:
        if self._target.execute_command("EXISTS", FILLING):
            return False
        filled = self._target.execute_command("GET", FILLED)
        if self._state() != b"moved" or filled != self._source.get(COPY_ID):
            raise CopyRefused(
                f"this is not the cluster of the copy: delete {COPY} in the single Redis for another"
            )
        return True

    def _begin(self) -> None:
        rankings: list[Command] = [("EXISTS", KEYS.popular(bucket)) for bucket in KEYS.buckets]
        if any(_checked(self._target.execute_all(rankings))):
            raise CopyRefused("there are likes in the cluster")
        self._target.execute_command("SET", FILLING, 1)
        self._source.set(COPY_ID, uuid4().hex)
        self._source.set(COPY, "copying")

    def _catch_up(self) -> int:
        """Copy what has changed; a key that changes meanwhile is noted anew."""
        # Those of a catching up that was broken off come first.
        if not self._source.exists(CHANGING) and self._source.exists(CHANGED):
            self._source.rename(CHANGED, CHANGING)
        count = 0
        while keys := self._source.execute_command("SRANDMEMBER", CHANGING, BATCH):
            self._copy(keys)
            count += self._source.srem(CHANGING, *keys)
        return count

    def _copy(self, noted: Sequence[bytes]) -> None:
        writes: list[Command] = []
        rankings = []
        # Not those that are put together there: to read the whole ranking may take seconds.
        keys = [key for key in noted if _copies(key.decode())]
        found = _checked(self._source.execute_all([(verb, key) for key in keys for verb in ("PTTL", "DUMP")]))
        for key, ttl, content in zip(keys, found[::2], found[1::2], strict=True):
            for copy in _copies(key.decode()):
                restore = ("RESTORE", copy, max(ttl, 1) if ttl >= 0 else 0, content, "REPLACE")
                writes.append(("DEL", copy) if content is None else restore)
            if key.startswith(LIKERS.encode()):
                post_id = UUID(key.decode().removeprefix(LIKERS))
                popular = KEYS.popular(KEYS.bucket(post_id))
                rankings.append(([KEYS.likers(post_id), popular], [str(post_id)]))
        self._write(writes)
        if rankings:
            self._rank.run_all(self._target, rankings)

    def _copy_outbox(self, outbox: str, copy: Callable[[int], str]) -> None:
        for entries in _batches(self._source.zscan_iter(outbox, count=BATCH)):
            bucket = KEYS.bucket
            self._write(
                [
                    ("ZADD", copy(bucket(UUID(entry.decode().split()[0]))), due, entry)
                    for entry, due in entries
                ]
            )

    def _write(self, commands: Sequence[Command]) -> None:
        if commands:
            _checked(self._target.execute_all(commands))


def _checked(responses: list[Any]) -> list[Any]:
    """Raises the first error among them."""
    for response in responses:
        if isinstance(response, Exception):
            raise response
    return responses


def _copies(key: str) -> Iterable[str]:
    """What a key is called in the cluster: nowhere for those that are put together there."""
    for prefix, name in ((LIKERS, KEYS.likers), (MAILED, KEYS.mailed), (DELETED, KEYS.deleted)):
        if key.startswith(prefix):
            return (name(UUID(key.removeprefix(prefix))),)
    if key.startswith(LIKED):
        return (KEYS.liked(key.removeprefix(LIKED)),)
    if key.startswith(UNDONE):
        post_id, _, username = key.removeprefix(UNDONE).partition(":")
        return KEYS.undone(UUID(post_id), username), KEYS.undone_of(username, post_id)
    return ()


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
