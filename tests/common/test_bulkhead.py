"""One service that hangs holds up so many requests, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from common import bulkhead
from common.bulkhead import Bulkhead
from common.errors import Unavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Bulkhead:
    monkeypatch.setattr(bulkhead, "SEATS", 2)
    return Bulkhead()


@pytest.fixture
async def taken(services: Bulkhead) -> AsyncIterator[AsyncExitStack]:
    """All seats of the polls service, until this is closed."""
    async with AsyncExitStack() as seats:
        for _ in range(2):
            await seats.enter_async_context(services.seat("polls"))
        yield seats


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulkhead, "QUEUE_SECONDS", 0.01)


async def ask(services: Bulkhead, service_name: str = "polls") -> bool:
    """Whether there was a seat."""
    try:
        async with services.seat(service_name):
            return True
    except Unavailable:
        return False


async def test_who_waits_gets_the_next_seat_that_is_free(services: Bulkhead, taken: AsyncExitStack) -> None:
    waiting = asyncio.create_task(ask(services))
    await asyncio.sleep(0)
    assert not waiting.done()

    await taken.aclose()

    assert await waiting


async def test_who_waits_in_vain_is_told_who_is_overloaded(
    services: Bulkhead, taken: AsyncExitStack, hurried: None
) -> None:
    with pytest.raises(Unavailable) as refusal:
        await services.seat("polls").__aenter__()

    assert refusal.value.code == "polls_overloaded"


async def test_after_one_has_waited_in_vain_nobody_waits(
    services: Bulkhead, taken: AsyncExitStack, hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ask(services)
    monkeypatch.setattr(bulkhead, "QUEUE_SECONDS", 3600)

    assert not await ask(services)


async def test_who_comes_when_a_seat_is_free_again_gets_it(
    services: Bulkhead, taken: AsyncExitStack, hurried: None
) -> None:
    await ask(services)
    await taken.aclose()

    assert await ask(services)


async def test_a_service_that_is_full_keeps_nobody_from_another(
    services: Bulkhead, taken: AsyncExitStack
) -> None:
    assert await ask(services, "users")
