"""Waiting for what another thread or process is about to do, without guessing how long."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

# A test that passes is done long before, on a busy machine too; one that fails ends.
PATIENCE_SECONDS = 120


def eventually(look: Callable[[], Value]) -> Value:
    """What `look` sees as soon as that is true; fails when it never is."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.02)
    return seen


def succeeds(call: Callable[[], object], outages: tuple[type[Exception], ...]) -> bool:
    """Whether `call` raises none of these outages; any other error is a failure of the test."""
    try:
        call()
    except outages:
        return False
    return True
