"""A server that takes connections and never answers, and what it costs its callers."""

import math
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from common import circuit_breaker
from common.circuit_breaker import CircuitOpen
from common.server.app import THREADS


@contextmanager
def hung_server() -> Iterator[int]:
    """Its port on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def count_waits(call: Callable[[], object], outages: tuple[type[Exception], ...]) -> int:
    """How many of many calls wait in vain on the threads of a service; the others find the circuit open.

    It stays open, so that the count does not depend on how fast the machine is.
    """

    def waits(_: int) -> bool:
        with pytest.raises(outages) as refused:
            call()
        return not isinstance(refused.value, CircuitOpen)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(THREADS) as threads:
        patch.setattr(circuit_breaker, "OPEN_SECONDS", math.inf)
        return sum(threads.map(waits, range(20 * THREADS)))
