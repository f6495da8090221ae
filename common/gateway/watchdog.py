"""Cancels a forwarded request when its client disconnects or its deadline passes."""

import asyncio
from types import TracebackType
from typing import Self

from common.gateway.forwarded_request import ClientDisconnected, ForwardedRequest

REQUEST_TIMEOUT_SECONDS = 15.0
WATCH_AFTER_SECONDS = 0.5


class Watchdog:
    """Cancels a request whose client has disconnected, or whose response does not come in time.

    It watches only a request that takes a while. Most are over before, and a
    task for each would cost more than all else here.
    """

    def __init__(self, request: ForwardedRequest) -> None:
        self._request = request
        self._watch_task: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    def __enter__(self) -> Self:
        self._request_task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_SECONDS, self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._watch_task:
            self._watch_task.cancel()
        if self._reason and kind is asyncio.CancelledError:
            assert self._request_task
            self._request_task.uncancel()
            raise self._reason from exc

    def _start(self) -> None:
        self._watch_task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS - WATCH_AFTER_SECONDS):
                await self._request.wait_for_disconnect()
        except TimeoutError:
            if not self._request.has_response:
                self._cancel(self._request.timeout_error())
                return
            await self._request.wait_for_disconnect()
        self._cancel(ClientDisconnected())

    def _cancel(self, reason: Exception) -> None:
        assert self._request_task
        self._reason = reason
        self._request_task.cancel()
