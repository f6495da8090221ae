"""Processes that wait for revocations, and the task that learns of those of other instances."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from anyio import to_thread

from common.revocations import RevocationChanges, Revocations
from users_service import errors
from users_service.revocations import PAGE, RevocationStore

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
CLEAN_SECONDS = 60


class RevocationWatchers:
    """Holds what is revoked, for this process too, and wakes all that wait at every change."""

    def __init__(self, store: RevocationStore, revocations: Revocations) -> None:
        self._store = store
        self._revocations = revocations
        self._is_stopping = False

    async def __aenter__(self) -> Self:
        self._change = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks = [
            asyncio.create_task(self._repeat(self.refresh, POLL_SECONDS)),
            asyncio.create_task(self._repeat(self._delete_expired, CLEAN_SECONDS)),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """End all waiting: the process is about to stop."""
        self._is_stopping = True
        self._wake()

    async def refresh(self) -> None:
        """Read what is new; while the database is unavailable, there is nothing new."""
        async with self._turn:
            with suppress(*self._store.outages):
                while new := await to_thread.run_sync(self._store.since, self._revocations.position):
                    self._revocations.update(
                        RevocationChanges(position=new[-1].position, revocations=list(new))
                    )
                    self._wake()

    async def changes(self, after: int, wait: float) -> RevocationChanges:
        """What came after a position: at once if there is something, else when there is, or after `wait`.

        All of it for a caller that is ahead of this instance, which another one has told more.
        """
        if after == self._revocations.position:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._other_than(after)
        position = self._revocations.position
        new = self._revocations.since(after if after <= position else 0)[:PAGE]
        return RevocationChanges(position=new[-1].position if len(new) == PAGE else position, revocations=new)

    async def _other_than(self, position: int) -> None:
        while self._revocations.position == position:
            if self._is_stopping:
                # After a list without news, the client would only wait again.
                raise errors.leaving()
            await self._change.wait()

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def _delete_expired(self) -> None:
        with suppress(*self._store.outages):
            await to_thread.run_sync(self._store.delete_expired)

    async def _repeat(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        while True:
            try:
                await work()
            except Exception:  # the next attempt may do
                logger.exception("revocations cannot be kept")
            await asyncio.sleep(seconds)
