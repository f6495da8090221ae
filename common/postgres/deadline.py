"""A deadline for all that psycopg2 waits for."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from select import POLLIN, POLLOUT, poll
from typing import Any

import psycopg2
from psycopg2 import extensions

CONNECT_SECONDS = 1.0
# Waited even past the deadline: this process may have been stopped meanwhile, and the response is there.
GRACE_SECONDS = 0.1

EVENTS = {extensions.POLL_READ: POLLIN, extensions.POLL_WRITE: POLLOUT}

# By the monotonic clock. None is no deadline: a migration takes the time that it needs.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


class ServerTimeout(psycopg2.OperationalError):
    """The server has taken too long."""


@contextmanager
def deadline_in(seconds: float) -> Iterator[None]:
    """All that psycopg2 waits for inside is over by one deadline, or raises ServerTimeout."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def wait(connection: Any) -> None:
    """Wait for the server in place of psycopg2, whose own waiting never ends when the server hangs."""
    deadline = _deadline.get()
    if connection.status == extensions.STATUS_SETUP:
        deadline = min(deadline or math.inf, time.monotonic() + CONNECT_SECONDS)
    while (state := connection.poll()) != extensions.POLL_OK:
        if state not in EVENTS:
            raise psycopg2.OperationalError("the connection is lost")
        socket = poll()
        socket.register(connection.fileno(), EVENTS[state])
        left = None if deadline is None else max(deadline - time.monotonic(), GRACE_SECONDS)
        if not socket.poll(left and left * 1000):
            raise ServerTimeout("the server did not answer in time")
