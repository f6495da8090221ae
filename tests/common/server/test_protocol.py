"""A connection's deadlines: one timer, and none while nothing is due."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from common.server import protocol as module
from common.server.protocol import BoundedProtocol
from tests.polling import PATIENCE_SECONDS

GET = b"GET / HTTP/1.1\r\nHost: here\r\n"


pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEADER_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(module, "BODY_TIMEOUT_SECONDS", 0.05)


async def _wait_while_timed(connection: BoundedProtocol) -> None:
    while connection._deadline_timer:
        await asyncio.sleep(0.001)


async def _closed_after(sent: bytes) -> bytes:
    """What a connection says until it closes, of which each response waits until nothing is due."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await _wait_while_timed(connection)
        await Response("done")(scope, receive, send)
        client.sendall(sent)

    config = uvicorn.Config(app, http=BoundedProtocol, log_config=None)
    config.load()
    client, server = socket.socketpair()
    async with asyncio.timeout(PATIENCE_SECONDS):
        client.sendall(GET + b"\r\n")
        loop = asyncio.get_running_loop()
        connection = BoundedProtocol(config, ServerState(), {})
        await loop.connect_accepted_socket(lambda: connection, server)
        client.setblocking(False)
        received = b""
        while chunk := await loop.sock_recv(client, 10_000):
            received += chunk
    client.close()
    return received


async def test_a_head_after_a_long_response_is_in_time_or_cut_off() -> None:
    assert (await _closed_after(GET)).endswith(b"done")
