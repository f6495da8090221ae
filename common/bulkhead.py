"""How much one service may hold up: of all requests, those on their way to it."""

import asyncio
from asyncio import Semaphore
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.errors import Unavailable

SEATS = 256
QUEUE_SECONDS = 1.0


class Bulkhead:
    """A number of seats for each service, so that one that hangs sinks alone (Nygard, "Release It!").

    Who finds none free waits a moment. Once one has waited in vain, those who
    come are refused at once, until a seat is free again.
    """

    def __init__(self) -> None:
        self._seats: defaultdict[str, Semaphore] = defaultdict(lambda: Semaphore(SEATS))
        self._full: set[str] = set()

    @asynccontextmanager
    async def seat(self, service_name: str) -> AsyncIterator[None]:
        """A place among the requests on their way to this service. Raises Unavailable."""
        seats = self._seats[service_name]
        if seats.locked():
            await self._wait_for(seats, service_name)
        else:
            await seats.acquire()
        try:
            yield
        finally:
            seats.release()
            self._full.discard(service_name)

    async def _wait_for(self, seats: Semaphore, service_name: str) -> None:
        try:
            async with asyncio.timeout(0 if service_name in self._full else QUEUE_SECONDS):
                await seats.acquire()
        except TimeoutError:
            self._full.add(service_name)
            detail = f"{service_name} has more requests in hand than it can answer."
            raise Unavailable(f"{service_name}_overloaded", detail) from None
