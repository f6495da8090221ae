"""Clients that wait for a change of the instances, and the task that keeps the clock going."""

import asyncio
from functools import lru_cache, partial
from types import TracebackType
from typing import Self

from common.discovery.models import Snapshot
from common.telemetry import metrics
from common.telemetry.instruments import Readings
from registry_service import errors
from registry_service.clock import TICK_SECONDS
from registry_service.models import Position
from registry_service.store import RegistryStore

# To respond to a watcher takes a tenth of a millisecond. However fast changes follow each other, watchers
# are woken so rarely that they take a small part of a core; each sees a change in well under a second.
PAUSE_SECONDS_A_RESPONSE = 0.003
MAX_PAUSE_SECONDS = 0.6

# Most watchers wake with the same version; a few are late.
MAX_RENDERED_CHANGES = 16


News = asyncio.Future[bytes]


class SnapshotWatchers:
    """Wakes all waiting clients after a change; an expired lease is one, too."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._is_stopping = False
        # Of each that waits, the version that its client has, and whether changes are enough for it.
        self._waiting: dict[News, tuple[int, bool]] = {}
        metrics.watchers.read_from(self._read_waiting)
        self._told_version = 0
        self._last_wake = 0.0
        self._responses = 0
        self._next_wake: asyncio.TimerHandle | None = None
        # What is the same for all clients is rendered once.
        self._rendered: tuple[Snapshot | None, bytes] = (None, b"")
        self._changes = lru_cache(MAX_RENDERED_CHANGES)(self._render_changes)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._told_version = self._store.version()
        self._store.on_change(self._wake_soon)
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)

    def stop(self) -> None:
        """End all waiting: the process is about to stop."""
        self._is_stopping = True
        self._wake()
        for news in self._waiting:
            if not news.done():
                # After a snapshot, the client would only wait again.
                news.set_exception(errors.leaving())

    async def news(self, position: Position) -> bytes:
        """What `subscribe` gives, once it is there."""
        news = self.subscribe(position)
        return news if isinstance(news, bytes) else await news

    def subscribe(self, position: Position) -> bytes | News:
        """A Snapshot as JSON or, where they are enough, Changes.

        At once if the client's is of another epoch, else when there is something newer, or after its wait.
        Raises Unavailable when the registry stops meanwhile.
        """
        since = position.version if position.epoch in (None, self._store.epoch) else None
        if since is None:
            return self._snapshot()
        # What has changed since watchers were last woken is for the next time.
        if since < self._told_version:
            return self._newer(since, position.changes)
        if self._is_stopping:
            raise errors.leaving()
        return self._wait(since, position)

    def _wait(self, since: int, position: Position) -> News:
        news: News = self._loop.create_future()
        self._waiting[news] = since, position.changes
        timeout = self._loop.call_later(position.wait, self._respond, news)
        news.add_done_callback(partial(self._forget, timeout))
        return news

    def _forget(self, timeout: asyncio.TimerHandle, news: News) -> None:
        timeout.cancel()
        del self._waiting[news]

    def _respond(self, news: News) -> None:
        if not news.done():
            news.set_result(self._newer(*self._waiting[news]))

    def _newer(self, since: int, takes_changes: bool) -> bytes:
        self._responses += 1
        changes = self._changes(since, self._store.version()) if takes_changes else None
        return changes or self._snapshot()

    def _snapshot(self) -> bytes:
        snapshot = self._store.snapshot()
        if self._rendered[0] is not snapshot:
            self._rendered = (snapshot, snapshot.model_dump_json().encode())
        return self._rendered[1]

    def _render_changes(self, since: int, version: int) -> bytes | None:
        """Those up to this version, which is the newest."""
        changes = self._store.changes(since)
        return changes.model_dump_json().encode() if changes else None

    def _read_waiting(self) -> Readings:
        return [((), len(self._waiting))]

    def _wake_soon(self) -> None:
        if self._next_wake is None:
            self._next_wake = self._loop.call_at(self._pause_ends(), self._wake_when_due)

    def _wake_when_due(self) -> None:
        self._next_wake = None
        if self._loop.time() < self._pause_ends():
            self._wake_soon()  # there were more responses meanwhile
        else:
            self._wake()

    def _pause_ends(self) -> float:
        return self._last_wake + min(self._responses * PAUSE_SECONDS_A_RESPONSE, MAX_PAUSE_SECONDS)

    def _wake(self) -> None:
        self._last_wake, self._responses = self._loop.time(), 0
        self._told_version = self._store.version()
        for news, (since, _) in self._waiting.items():
            if since < self._told_version:
                self._respond(news)

    async def _tick(self) -> None:
        while True:
            self._store.expire()
            await asyncio.sleep(TICK_SECONDS)
