"""How much one service may hold up: of all requests, those on their way to it."""

import asyncio
from asyncio import Semaphore

from common.errors import Unavailable

SEATS = 256
QUEUE_SECONDS = 1.0


class Bulkhead:
    """The seats of one service: when it hangs, it sinks alone (Nygard, "Release It!").

    Who finds none free waits a moment. Once one has waited in vain, those who
    come are refused at once, until a seat is free again.
    """

    def __init__(self, service_name: str) -> None:
        self._service_name = service_name
        self._seats = Semaphore(SEATS)
        self._is_full = False

    async def __aenter__(self) -> None:
        """Raises Unavailable."""
        if self._seats.locked():
            await self._wait()
        else:
            await self._seats.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._seats.release()
        self._is_full = False

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(0 if self._is_full else QUEUE_SECONDS):
                await self._seats.acquire()
        except TimeoutError:
            self._is_full = True
            detail = f"{self._service_name} has more requests in hand than it can answer."
            raise Unavailable(f"{self._service_name}_overloaded", detail) from None
