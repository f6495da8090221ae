"""Writes that go out together."""

import asyncio
from typing import cast

import pytest

from common.server import write_buffer as module
from common.server.write_buffer import MAX_BUFFERED_BYTES, WriteBuffer

pytestmark = pytest.mark.anyio


class Recorder:
    """What a transport was told to do, in order."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []
        self.write = self.done.append
        self.unread = 0

    def write_eof(self) -> None:
        self.done.append("eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return "close" in self.done


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def joined(recorder: Recorder) -> WriteBuffer:
    return WriteBuffer(cast("asyncio.Transport", recorder), asyncio.get_running_loop())


async def test_what_is_written_in_one_turn_goes_out_at_once(joined: WriteBuffer, recorder: Recorder) -> None:
    joined.write(b"head, ")
    joined.write(b"body")
    await asyncio.sleep(0)
    assert recorder.done == [b"head, body"]


async def test_what_is_written_later_goes_out_later(joined: WriteBuffer, recorder: Recorder) -> None:
    joined.write(b"head, ")
    await asyncio.sleep(0)
    joined.write(b"body")
    await asyncio.sleep(0)
    assert recorder.done == [b"head, ", b"body"]


@pytest.mark.parametrize(("end", "last"), [("close", "close"), ("write_eof", "eof")])
async def test_what_is_held_goes_out_before_the_end(
    joined: WriteBuffer, recorder: Recorder, end: str, last: str
) -> None:
    joined.write(b"all")
    getattr(joined, end)()
    await asyncio.sleep(0)
    assert recorder.done == [b"all", last]


async def test_much_is_not_held(joined: WriteBuffer, recorder: Recorder) -> None:
    joined.write(b"x" * (MAX_BUFFERED_BYTES + 1))
    assert recorder.done == [b"x" * (MAX_BUFFERED_BYTES + 1)]


async def test_what_nobody_reads_is_given_up_in_the_end(
    joined: WriteBuffer, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT_SECONDS", 0)
    recorder.unread = 1
    joined.close()
    await asyncio.sleep(0.01)
    assert recorder.done == ["close", "abort"]


async def test_all_else_is_the_transports(joined: WriteBuffer) -> None:
    joined.close()
    assert joined.is_closing()
