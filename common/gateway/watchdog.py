"""Cancels a forwarded request when its client disconnects or its deadline passes."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from common.gateway.forwarded_request import ClientDisconnected, ForwardedRequest

REQUEST_TIMEOUT_SECONDS = 15.0
WATCH_AFTER_SECONDS = 0.5


class Watchdog:
    """Cancels requests whose clients have disconnected, or whose responses do not come in time.

    It watches only those that take a while. Most are over before, and a task
    or a timer for each would cost more than all else here.
    """

    def __init__(self) -> None:
        # When each is to be watched, the next one first: all have the same time until then.
        self._due: dict[_Watch, float] = {}
        self._waking_loop: asyncio.AbstractEventLoop | None = None

    def watch(self, request: ForwardedRequest) -> "_Watch":
        """Watch it inside of the `with`, which raises what it is cancelled for."""
        return _Watch(request, self)

    def add(self, watch: "_Watch") -> None:
        loop = asyncio.get_running_loop()
        self._due[watch] = due = loop.time() + WATCH_AFTER_SECONDS
        if loop is not self._waking_loop:
            self._waking_loop = loop
            loop.call_at(due, self._wake)

    def remove(self, watch: "_Watch") -> None:
        self._due.pop(watch, None)

    def _wake(self) -> None:
        loop = asyncio.get_running_loop()
        while self._due:
            watch, due = next(iter(self._due.items()))
            if due > loop.time():
                loop.call_at(due, self._wake)
                return
            self.remove(watch)
            watch.start()
        self._waking_loop = None


class _Watch:
    """The watch of one request."""

    def __init__(self, request: ForwardedRequest, watchdog: Watchdog) -> None:
        self._request = request
        self._watchdog = watchdog
        self._watch_task: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    def __enter__(self) -> Self:
        self._request_task = asyncio.current_task()
        self._watchdog.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._watchdog.remove(self)
        if self._watch_task:
            self._watch_task.cancel()
        if self._reason and kind is asyncio.CancelledError:
            assert self._request_task
            self._request_task.uncancel()
            raise self._reason from exc

    def start(self) -> None:
        self._watch_task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS - WATCH_AFTER_SECONDS):
                await self._request.wait_for_disconnect()
                self._cancel(ClientDisconnected())
                return
        # Not where the error is handled: a stream would keep it, with all its frames.
        if not self._request.has_response:
            self._cancel(self._request.timeout_error())
            return
        await self._request.wait_for_disconnect()
        self._cancel(ClientDisconnected())

    def _cancel(self, reason: Exception) -> None:
        assert self._request_task
        self._reason = reason
        self._request_task.cancel()
