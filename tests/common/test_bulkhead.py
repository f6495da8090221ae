"""A bulkhead holds up so many calls, and no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from threading import Thread

import pytest

from common.bulkhead import Bulkhead, BulkheadFull, ThreadBulkhead

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def patient() -> Bulkhead:
    return Bulkhead(slots=2, max_wait_seconds=3600)


@pytest.fixture
def hurried() -> Bulkhead:
    return Bulkhead(slots=2, max_wait_seconds=0.01)


@pytest.fixture
async def taken(patient: Bulkhead, hurried: Bulkhead) -> AsyncIterator[AsyncExitStack]:
    """All slots, until this is closed."""
    async with AsyncExitStack() as slots:
        for bulkhead in (patient, hurried) * 2:
            await slots.enter_async_context(bulkhead)
        yield slots


async def finds_a_slot(bulkhead: Bulkhead) -> bool:
    try:
        async with bulkhead:
            return True
    except BulkheadFull:
        return False


async def test_a_caller_that_waits_gets_the_next_free_slot(patient: Bulkhead, taken: AsyncExitStack) -> None:
    waiting = asyncio.create_task(finds_a_slot(patient))
    await asyncio.sleep(0)
    assert not waiting.done()

    await taken.aclose()

    assert await waiting


async def test_a_caller_that_has_waited_in_vain_is_refused(hurried: Bulkhead, taken: AsyncExitStack) -> None:
    assert not await finds_a_slot(hurried)


async def test_after_one_caller_has_waited_in_vain_no_other_waits(
    hurried: Bulkhead, taken: AsyncExitStack
) -> None:
    await finds_a_slot(hurried)
    hurried._max_wait_seconds = 3600

    assert not await finds_a_slot(hurried)


async def test_a_caller_gets_a_slot_that_is_free_again(hurried: Bulkhead, taken: AsyncExitStack) -> None:
    await finds_a_slot(hurried)
    await taken.aclose()

    assert await finds_a_slot(hurried)


def test_a_thread_that_finds_no_slot_is_refused() -> None:
    bulkhead = ThreadBulkhead(slots=1, max_wait_seconds=0.01)

    with bulkhead, pytest.raises(BulkheadFull):
        bulkhead.acquire()


def test_after_one_thread_has_waited_in_vain_no_other_waits() -> None:
    bulkhead = ThreadBulkhead(slots=1, max_wait_seconds=0.01)
    with bulkhead:
        with pytest.raises(BulkheadFull):
            bulkhead.acquire()
        bulkhead._max_wait_seconds = 3600

        with pytest.raises(BulkheadFull):
            bulkhead.acquire()


def test_another_thread_may_release_a_slot() -> None:
    bulkhead = ThreadBulkhead(slots=1, max_wait_seconds=3600)
    bulkhead.acquire()
    releasing = Thread(target=bulkhead.release)
    releasing.start()

    bulkhead.acquire()

    releasing.join()
