"""A bulkhead: how many calls of one kind may be under way (Nygard, "Release It!").

A caller that finds no free slot waits a moment. After one has timed out,
all others are refused at once, until a slot is free again: a part that hangs
holds up its own callers only.
"""

from threading import Semaphore

import anyio


class BulkheadFull(Exception):
    """No slot became free in time."""


class Bulkhead:
    """Slots for coroutines."""

    def __init__(self, slots: int, max_wait_seconds: float) -> None:
        self._slots = anyio.Semaphore(slots)
        self._max_wait_seconds = max_wait_seconds
        self._is_full = False

    async def __aenter__(self) -> None:
        """Raises BulkheadFull."""
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            await self._wait()

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()
        self._is_full = False

    @property
    def pending(self) -> int:
        """How many callers wait for a slot."""
        return self._slots.statistics().tasks_waiting

    async def _wait(self) -> None:
        if self._is_full:
            raise BulkheadFull
        try:
            with anyio.fail_after(self._max_wait_seconds):
                await self._slots.acquire()
        except TimeoutError:
            self._is_full = True
            raise BulkheadFull from None


class ThreadBulkhead:
    """Slots for threads. One thread may take a slot, and another release it."""

    def __init__(self, slots: int, max_wait_seconds: float) -> None:
        self._slots = Semaphore(slots)
        self._max_wait_seconds = max_wait_seconds
        self._is_full = False

    def acquire(self) -> None:
        """Raises BulkheadFull."""
        if not self._slots.acquire(timeout=0 if self._is_full else self._max_wait_seconds):
            self._is_full = True
            raise BulkheadFull

    def release(self) -> None:
        self._slots.release()
        self._is_full = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
