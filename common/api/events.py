"""Server-sent events (WHATWG HTML, §9.2): how one is written, and the response that brings them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Protocol

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

# A line that clients skip. No blank line after it: some clients would take that for the end of an event.
COMMENT = b":\n"

# In a scope: what goes on when the app has returned. RequestContext awaits it.
REST = "microblog.rest"
Rest = Callable[[Receive, Send], Awaitable[None]]


def event(event_id: object, kind: str, data: bytes) -> bytes:
    """One event; `data` is a line of JSON."""
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (str(event_id).encode(), kind.encode(), data)


class Events(Protocol):
    """What an EventStream sends."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Events as they come, until `close` is called."""
        ...

    def close(self) -> None: ...


class EventStream(StreamingResponse):
    """Sends events until they end or the client disconnects; then it closes them.

    Starlette's own response takes two more tasks for each client, and keeps all that has led to it while the
    client stays. This one returns at once, and leaves the rest to RequestContext.
    """

    media_type = "text/event-stream"

    def __init__(self, events: Events) -> None:
        # nginx would hold events back until it has a buffer full of them.
        super().__init__((), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        try:
            await send({**start, "headers": self.raw_headers})
        except BaseException:
            self._events.close()
            raise
        if scope.get("is_head"):
            self._events.close()
            await send({"type": "http.response.body", "body": b""})
        else:
            scope[REST] = partial(_send, self._events)


async def _send(events: Events, receive: Receive, send: Send) -> None:
    watching = asyncio.create_task(_close_on_disconnect(events, receive))
    try:
        async for chunk in events.chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        watching.cancel()
        events.close()


async def _close_on_disconnect(events: Events, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    events.close()
