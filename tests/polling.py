"""Waiting for what another thread or process is about to do, without guessing how long."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# What is promised within two seconds takes longer on a busy machine; what is not bounded takes for ever.
BUSY_SECONDS = 6


def eventually(look: Callable[[], Value], seconds: float = 10) -> Value:
    """What `look` sees as soon as that is true; fails when it never is."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return seen
