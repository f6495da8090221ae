"""Clients that wait for a change of the snapshot, and the task that keeps the clock going."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from common.discovery.models import Snapshot
from common.telemetry import metrics
from common.telemetry.instruments import Readings
from registry_service import errors
from registry_service.clock import TICK_SECONDS
from registry_service.store import RegistryStore


class SnapshotWatchers:
    """Wakes all waiting clients at every change; an expired lease is one, too."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._is_stopping = False
        self._waiting = 0
        metrics.watchers.read_from(self._read_waiting)
        self._rendered: tuple[Snapshot | None, bytes] = (None, b"")

    async def __aenter__(self) -> Self:
        self._change = asyncio.Event()
        self._store.on_change(self._wake)
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

    async def snapshot(self, epoch: str | None, version: int | None, wait: float) -> bytes:
        """The table as JSON, at once if it is of another epoch or newer, else when it is, or after `wait`."""
        if version is not None and epoch in (None, self._store.epoch):
            self._waiting += 1
            try:
                await self._newer_within(version, wait)
            finally:
                self._waiting -= 1
        snapshot = self._store.snapshot()
        if self._rendered[0] is not snapshot:
            # Rendered once for all clients that wake together.
            self._rendered = (snapshot, snapshot.model_dump_json().encode())
        return self._rendered[1]

    def _read_waiting(self) -> Readings:
        return [((), self._waiting)]

    async def _newer_within(self, version: int, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._newer_than(version)

    async def _newer_than(self, version: int) -> None:
        while self._store.version() <= version:
            if self._is_stopping:
                # After a snapshot, the client would only wait again.
                raise errors.leaving()
            await self._change.wait()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def _tick(self) -> None:
        while True:
            self._store.expire()
            await asyncio.sleep(TICK_SECONDS)
