"""Writing once what is written piece by piece."""

import asyncio
from typing import Any

# After closing, for what the client does not read.
FLUSH_TIMEOUT_SECONDS = 30.0
# Held no longer than this, so that the transport can say when it is more than the peer takes.
MAX_BUFFERED_BYTES = 64 * 1024


class WriteBuffer:
    """A transport that writes in one go what is written in one turn of the event loop.

    uvicorn writes the head of a response and then its body, and uvloop makes a
    system call and a packet of each: a good part of what a small response costs.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffered: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._buffered:
            self._loop.call_soon(self._flush)
        self._buffered.append(data)
        self._size += len(data)
        if self._size > MAX_BUFFERED_BYTES:
            self._flush()

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            # A transport closes when it is empty: never, if the peer does not read.
            self._loop.call_later(FLUSH_TIMEOUT_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        if self._buffered:
            joined = b"".join(self._buffered)
            self._buffered.clear()
            self._size = 0
            self._transport.write(joined)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
