"""What a response of server-sent events leaves to RequestContext."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Scope

from common.api.events import COMMENT, EventStream
from common.server.middleware import RequestContext

pytestmark = pytest.mark.anyio


class Comment:
    """A stream of one comment; it notes what its request's scope has meanwhile."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.seen: set[str] = set()
        self.is_closed = False

    async def chunks(self) -> AsyncIterator[bytes]:
        self.seen = set(self._scope)
        yield COMMENT

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def scope() -> Scope:
    path = {"path": "/stream", "raw_path": b"/stream", "scheme": "http", "client": None}
    return {"type": "http", "method": "GET", "headers": [(b"accept", b"*/*")], "state": {}, **path}


async def _receive() -> Message:
    await asyncio.Event().wait()
    return {}


async def _sent(scope: Scope, events: Comment) -> list[Message]:
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    await RequestContext(EventStream(events))(scope, _receive, send)
    return messages


async def test_a_stream_is_sent_from_its_head_to_its_end(scope: Scope) -> None:
    events = Comment(scope)
    head, *rest = await _sent(scope, events)

    assert head["status"] == 200
    assert [(one["body"], one.get("more_body", False)) for one in rest] == [(COMMENT, True), (b"", False)]
    assert events.is_closed


async def test_nothing_but_what_is_logged_is_kept_of_a_streams_request(scope: Scope) -> None:
    events = Comment(scope)
    await _sent(scope, events)

    assert events.seen == {"type", "method", "path", "raw_path", "scheme", "client"}


async def test_a_stream_whose_head_cannot_be_sent_is_closed(scope: Scope) -> None:
    events = Comment(scope)

    async def send(_: Message) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await EventStream(events)(scope, _receive, send)
    assert events.is_closed
