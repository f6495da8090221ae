"""A server that takes connections and never answers, and what it costs those who ask it."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from common.server.app import THREADS


@contextmanager
def hung_server() -> Iterator[int]:
    """Its port on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def seconds_of_a_crowd(ask: Callable[[], object], outages: tuple[type[Exception], ...]) -> float:
    """Until the last of many has been refused, when they have as many threads as a service."""

    def refused(_: int) -> None:
        with pytest.raises(outages):
            ask()

    started = time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(refused, range(20 * THREADS)))
    return time.monotonic() - started
