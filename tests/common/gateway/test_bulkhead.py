"""One service that hangs holds up so many requests, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from common.errors import Unavailable
from common.gateway import bulkhead
from common.gateway.bulkhead import Bulkhead

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> Bulkhead:
    monkeypatch.setattr(bulkhead, "SEATS", 2)
    return Bulkhead("polls")


@pytest.fixture
async def taken(polls: Bulkhead) -> AsyncIterator[AsyncExitStack]:
    """All seats, until this is closed."""
    async with AsyncExitStack() as seats:
        for _ in range(2):
            await seats.enter_async_context(polls)
        yield seats


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "QUEUE_SECONDS", 0.01)


async def finds_a_seat(service: Bulkhead) -> bool:
    try:
        async with service:
            return True
    except Unavailable:
        return False


async def test_who_waits_gets_the_next_seat_that_is_free(polls: Bulkhead, taken: AsyncExitStack) -> None:
    waiting = asyncio.create_task(finds_a_seat(polls))
    await asyncio.sleep(0)
    assert not waiting.done()

    await taken.aclose()

    assert await waiting


async def test_who_waits_in_vain_is_told_what_is_overloaded(
    polls: Bulkhead, taken: AsyncExitStack, hurried: None
) -> None:
    with pytest.raises(Unavailable) as refusal:
        await polls.__aenter__()

    assert refusal.value.code == "polls_overloaded"


async def test_after_one_has_waited_in_vain_nobody_waits(
    polls: Bulkhead, taken: AsyncExitStack, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await finds_a_seat(polls)
    monkeypatch.setattr(bulkhead, "QUEUE_SECONDS", 3600)

    assert not await finds_a_seat(polls)


async def test_who_comes_when_a_seat_is_free_again_gets_it(
    polls: Bulkhead, taken: AsyncExitStack, hurried: None
) -> None:
    await finds_a_seat(polls)
    await taken.aclose()

    assert await finds_a_seat(polls)
