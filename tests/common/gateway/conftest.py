"""What the limiters count in, and the event loop in which they do."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from common.gateway import rate_limits
from tests.polling import PATIENCE_SECONDS


@pytest.fixture
def redis_url(redis_port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Redis without any counts, which is never late, however busy the machine is."""
    monkeypatch.setattr(rate_limits, "REDIS_SECONDS", PATIENCE_SECONDS)
    with redis.Redis(port=redis_port, db=3) as client:
        client.flushdb()
    return f"redis://127.0.0.1:{redis_port}/3"


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Run a coroutine, all of them in one event loop."""
    with asyncio.Runner() as runner:
        yield runner.run
