"""Requests that take a while are watched, each in its turn."""

import asyncio

import pytest

from common.gateway import watchdog
from common.gateway.forwarded_request import ClientDisconnected, ForwardedRequest
from common.gateway.routes import Route
from common.gateway.watchdog import Watchdog

SCOPE = {"headers": [], "client": None, "method": "GET", "raw_path": b"/users"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "WATCH_AFTER_SECONDS", 0.01)


async def _receive() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def _outcome(watchdog: Watchdog, seconds: float) -> str:
    """Of a request that takes so long, and whose client has gone."""
    try:
        with watchdog.watch(ForwardedRequest(Route("users"), SCOPE, _receive)):
            await asyncio.sleep(seconds)
    except ClientDisconnected:
        return "cancelled"
    return "over"


def test_a_request_that_takes_a_while_is_watched_and_a_quick_one_is_not(run) -> None:
    async def work(watchdog: Watchdog) -> list[str]:
        return await asyncio.gather(*(_outcome(watchdog, seconds) for seconds in (0, 3600, 0, 3600)))

    assert run(work(Watchdog())) == ["over", "cancelled", "over", "cancelled"]


def test_a_request_is_watched_though_none_was_under_way_when_the_watchdog_woke(run) -> None:
    async def work(watchdog: Watchdog) -> list[str]:
        before = await _outcome(watchdog, 0)
        while watchdog._waking_loop:
            await asyncio.sleep(0.001)
        return [before, await _outcome(watchdog, 3600)]

    assert run(work(Watchdog())) == ["over", "cancelled"]


def test_a_watchdog_works_in_one_event_loop_after_the_other() -> None:
    one = Watchdog()

    assert [asyncio.run(_outcome(one, seconds)) for seconds in (0, 3600)] == ["over", "cancelled"]
