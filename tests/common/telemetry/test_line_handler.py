"""When lines of the log are written: some together, warnings at once."""

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from common.telemetry.logging import LineHandler
from tests.polling import PATIENCE_SECONDS


class Writes(io.RawIOBase):
    """What reaches the operating system, call by call."""

    def __init__(self) -> None:
        self.made: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.made.append(bytes(data))
        return len(data)


@pytest.fixture
def writes() -> Writes:
    return Writes()


@pytest.fixture
def handler(writes: Writes) -> LineHandler:
    return LineHandler(io.TextIOWrapper(io.BufferedWriter(writes)))


@pytest.fixture
def log(handler: LineHandler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.lines")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def _written(writes: Writes) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not writes.made:
            await asyncio.sleep(0.001)


def test_lines_of_a_moment_are_written_in_one_go(log: logging.Logger, writes: Writes) -> None:
    async def work() -> None:
        log.info("one")
        log.info("two")
        await _written(writes)

    asyncio.run(work())

    assert writes.made == [b"one\ntwo\n"]


def test_each_moment_has_a_write_of_its_own(log: logging.Logger, writes: Writes) -> None:
    async def work(line: str) -> None:
        log.info(line)
        await _written(writes)

    asyncio.run(work("one"))
    first = writes.made.copy()
    writes.made.clear()
    asyncio.run(work("two"))

    assert (first, writes.made) == ([b"one\n"], [b"two\n"])


def test_a_warning_is_written_at_once_after_the_lines_before_it(log: logging.Logger, writes: Writes) -> None:
    async def work() -> list[bytes]:
        log.info("one")
        log.warning("two")
        return writes.made.copy()

    assert asyncio.run(work()) == [b"one\ntwo\n"]


def test_a_line_outside_of_an_event_loop_is_written_at_once(log: logging.Logger, writes: Writes) -> None:
    log.info("one")

    assert writes.made == [b"one\n"]


def test_a_line_that_still_waits_when_its_loop_ends_is_written_with_the_next(
    log: logging.Logger, writes: Writes
) -> None:
    async def work(line: str) -> None:
        log.info(line)

    asyncio.run(work("one"))
    asyncio.run(work("two"))
    log.info("three")

    assert writes.made == [b"one\ntwo\nthree\n"]


def test_a_line_that_waits_is_written_when_logging_ends(
    log: logging.Logger, handler: LineHandler, writes: Writes
) -> None:
    async def work() -> None:
        log.info("one")

    asyncio.run(work())
    handler.flush()

    assert writes.made == [b"one\n"]
