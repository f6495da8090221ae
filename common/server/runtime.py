"""How busy the event loop and the threads for endpoints are."""

import asyncio
from typing import Self

from anyio import CapacityLimiter, to_thread

from common.telemetry import metrics
from common.telemetry.instruments import Readings

TICK_SECONDS = 0.5


class Runtime:
    """Measures by how much a timer is late, and says at each scrape which threads are in use."""

    async def __aenter__(self) -> Self:
        self._limiter: CapacityLimiter = to_thread.current_default_thread_limiter()
        self._task = asyncio.create_task(self._measure_lag())
        metrics.threads.read_from(self._read_threads)
        metrics.thread_queue.read_from(self._read_queue)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            metrics.event_loop_lag.record(max(loop.time() - due, 0.0))

    def _read_threads(self) -> Readings:
        used = self._limiter.borrowed_tokens
        return [(("used",), used), (("idle",), self._limiter.total_tokens - used)]

    def _read_queue(self) -> Readings:
        return [((), self._limiter.statistics().tasks_waiting)]
