"""What the gateway is measured against: the usual proxy, the least that Python can do, and what they ask."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
from fastapi import FastAPI, Request, Response

UPSTREAM = f"http://127.0.0.1:{os.environ.get('UPSTREAM_PORT', '9')}"
ANSWER = (
    b'{"id":"019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e","username":"alice",'
    b'"text":"Good morning, and a very good day to you!","created_at":"2026-01-01T00:00:00Z"}'
)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def upstream(scope: Any, receive: Any, send: Any) -> None:
    """Answers anything with the same post."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})


@asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[None]:
    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=1000)) as client:
        app.state.client = client
        yield


# The way that tutorials show.
usual = FastAPI(lifespan=_client)


@usual.api_route("/{path:path}", methods=["GET", "POST"])
async def pass_on(path: str, request: Request) -> Response:
    client: httpx.AsyncClient = request.app.state.client
    headers = [(name, value) for name, value in request.headers.items() if name != "host"]
    answer = await client.request(
        request.method, f"{UPSTREAM}/{path}", content=await request.body(), headers=headers
    )
    return Response(answer.content, answer.status_code, {"content-type": answer.headers["content-type"]})


class PassThrough:
    """aiohttp behind raw ASGI: no routing, no retry, no header of its own."""

    _session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
            )
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"] if name != b"host"]
        url = UPSTREAM + scope["raw_path"].decode()
        async with self._session.request(scope["method"], url, headers=headers) as answer:
            raw = [(name.lower(), value) for name, value in answer.raw_headers]
            await send({"type": "http.response.start", "status": answer.status, "headers": raw})
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


least = PassThrough()
