"""The time for which this process has run."""

import time
from collections.abc import Callable

TICK_SECONDS = 0.25
STALL_SECONDS = 2.0


class StallFreeClock:
    """A clock that stands still while the process does.

    A process that is stopped, starved or asleep takes no heartbeats, so that
    time must not end any lease. The clock is read every
    `TICK_SECONDS` at least: a much longer gap between two reads was a stall.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_read = clock()
        self._lived = 0.0

    def __call__(self) -> float:
        now = self._clock()
        gap = now - self._last_read
        self._last_read = now
        if gap < STALL_SECONDS:
            self._lived += gap
        return self._lived
