"""The end of an exchange that nobody waits for, or that takes too long."""

import asyncio
from types import TracebackType
from typing import Self

from common.gateway.forwarded_request import ClientGone, Exchange

TOTAL_SECONDS = 15.0
PATIENCE_SECONDS = 0.5


class Lookout:
    """Ends an exchange whose client has gone, or whose answer does not come in time.

    Only one that takes a while is looked after: most are over before, and a
    task for each would cost more than all else here.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._looking: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    async def __aenter__(self) -> Self:
        self._exchanging = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._looking:
            self._looking.cancel()
        if self._reason and kind is asyncio.CancelledError:
            assert self._exchanging
            self._exchanging.uncancel()
            raise self._reason from exc

    def _begin(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(TOTAL_SECONDS - PATIENCE_SECONDS):
                await self._exchange.until_gone()
        except TimeoutError:
            if not self._exchange.is_answered:
                self._end(self._exchange.timed_out())
                return
            await self._exchange.until_gone()
        self._end(ClientGone())

    def _end(self, reason: Exception) -> None:
        assert self._exchanging
        self._reason = reason
        self._exchanging.cancel()
