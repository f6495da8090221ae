"""Streams of events that pass through: how many there may be, and how they end."""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.types import Send

from common.discovery.balancer import Attempt
from common.gateway import errors
from common.gateway.forwarded_response import send_body, send_head
from common.gateway.rate_limits import network
from common.gateway.transport import InstanceResponse
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
MAX_STREAMS = 3000
MAX_STREAMS_OF_AN_ADDRESS = 1500


def is_stream(response: InstanceResponse) -> bool:
    return response.content_type is not None and response.content_type.startswith(EVENT_STREAM)


class Streams:
    """All streams of this process."""

    def __init__(self) -> None:
        self._addresses: Counter[str] = Counter()
        self._responses: set[InstanceResponse] = set()
        self._is_stopping = False
        self._warn = RepeatedWarning(logger)

    @asynccontextmanager
    async def place(self, address: str) -> AsyncIterator[None]:
        """A place for a stream of this address. Raises Unavailable, TooManyRequests."""
        client = network(address)
        if self._is_stopping or self._addresses.total() >= MAX_STREAMS:
            raise errors.no_room_for_streams()
        if self._addresses[client] >= MAX_STREAMS_OF_AN_ADDRESS:
            raise errors.too_many_streams()
        self._addresses[client] += 1
        try:
            yield
        finally:
            self._addresses[client] -= 1
            if not self._addresses[client]:
                del self._addresses[client]

    async def send(self, response: InstanceResponse, attempt: Attempt, send: Send) -> None:
        """Pass events on as they come. A stream has no end of its own: the client resumes it."""
        self._responses.add(response)
        try:
            await send_head(response, send)
            response.forget_headers()
            await send_body(response, send)
        except httpx.TransportError as exc:
            await send({"type": "http.response.body", "body": b""})
            if not self._is_stopping:
                attempt.fail()
                self._warn(f"streams of {attempt.instance.netloc} break off: {exc!r}")
        finally:
            self._responses.discard(response)
            response.close()

    def stop(self) -> None:
        """End all streams: the process is about to stop, and clients resume elsewhere."""
        self._is_stopping = True
        for response in self._responses:
            response.close()
