"""A small HTTP server for a process whose work is another: GET and HEAD, one request a connection.

A web framework would double what a worker takes. Everything is bounded: the
head of a request, the time for it, and the connections.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

MAX_HEAD_BYTES = 8 * 1024
MAX_CONNECTIONS = 16
TIMEOUT_SECONDS = 5.0

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Request:
    """What is asked, and from which address."""

    method: str
    path: str
    headers: Headers
    peer: str


@dataclass(frozen=True)
class Response:
    """A whole response."""

    status: HTTPStatus
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Listener:
    """Sends the response that `respond` gives at once; an exception in there closes the connection."""

    def __init__(self, respond: Callable[[Request], Response]) -> None:
        self._respond = respond
        self._connections = 0

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Raises OSError when the port is taken."""
        return await asyncio.start_server(self._serve, host or None, port, limit=MAX_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    if self._connections <= MAX_CONNECTIONS:
                        await self._exchange(reader, writer)
        finally:
            self._connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request = _parse(head, writer.get_extra_info("peername")[0])
        response = self._respond(request) if request else Response(HTTPStatus.BAD_REQUEST, b"")
        writer.write(_render(response, with_body=request is None or request.method != "HEAD"))
        await writer.drain()


def _parse(head: bytes, peer: str) -> Request | None:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match first.decode("latin-1").split(" "):
        case [method, target, "HTTP/1.1" | "HTTP/1.0"]:
            pairs = (line.partition(b":") for line in lines)
            headers = [(name.lower(), value.strip()) for name, _, value in pairs]
            return Request(method, target.partition("?")[0], headers, peer)
        case _:
            return None


def _render(response: Response, with_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        *(f"{name}: {value}" for name, value in response.headers.items()),
        f"Content-Length: {len(response.body)}",
        "Connection: close",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (response.body if with_body else b"")
