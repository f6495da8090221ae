"""A circuit breaker: after one request has timed out, the next ones are refused at once."""

import time
from collections.abc import Callable

from common.telemetry import metrics
from common.telemetry.instruments import Readings

OPEN_SECONDS = 1.0


class CircuitOpen(Exception):
    """A call timed out just now, and no other is made yet."""


class CircuitBreaker:
    """A circuit breaker that opens for a moment when something hangs. Threads may share it.

    Each request bounds its own waiting. Those that queue for a thread meanwhile
    would wait as long once more, one row after the other; they are refused instead.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._open_until = 0.0
        metrics.open_breakers.read_from(self._read)

    def trip(self) -> None:
        """Refuse all calls for a moment."""
        self._open_until = self._clock() + OPEN_SECONDS
        metrics.breaker_trips.add(self._name)

    def raise_if_open(self) -> None:
        """Raises CircuitOpen while it is open."""
        if self._is_open():
            raise CircuitOpen(f"{self._name} hung just now")

    def _is_open(self) -> bool:
        return self._clock() < self._open_until

    def _read(self) -> Readings:
        return [((self._name,), self._is_open())]
