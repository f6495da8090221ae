"""httpx's requests and responses over aiohttp's connections.

httpx's own transport is the ceiling of a proxy, and httpx-aiohttp quotes
paths anew and takes a dropped connection for one that was never made
(docs/decisions/0002-gateway-transport.md).
"""

from collections.abc import AsyncIterator

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

CONNECT_SECONDS = 1.0
# Shorter than the services' own 75 seconds, so that an idle connection is closed from this side.
IDLE_SECONDS = 30


class _Verbatim(aiohttp.ClientRequest):
    """A request to which aiohttp adds no header: its `skip_auto_headers`, not worked out anew for each."""

    _skip_auto_headers = CIMultiDict([("Content-Type", None)])

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        """Add nothing."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Passes bytes on as they are: nothing decoded, no cookie kept, no header added, no path quoted.

    The target is the request's extension `target`, as in httpcore; the time
    between two reads is bounded by `read_seconds`.
    """

    def __init__(self, read_seconds: float) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=2 * CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=read_seconds
        )
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.extensions["target"].decode("ascii")
        host = request.url.netloc.decode("ascii")
        headers = [
            (name.decode("ascii"), value.decode())
            for name, value in request.headers.raw
            if name != b"Transfer-Encoding"  # httpx's way with a body of unknown length; aiohttp has its own
        ]
        try:
            answer = await self._open_session().request(
                request.method,
                URL(f"http://{host}{target}", encoded=True),
                headers=headers,
                data=_body(request),
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise httpx.ConnectError(str(exc), request=request) from exc
        except aiohttp.SocketTimeoutError as exc:
            raise httpx.ReadTimeout(str(exc), request=request) from exc
        except aiohttp.ClientError as exc:
            raise httpx.RemoteProtocolError(repr(exc), request=request) from exc
        return httpx.Response(
            answer.status, headers=answer.raw_headers, stream=_Body(answer), request=request
        )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Requests are counted elsewhere: here a queue would pass for a server that is away.
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=_Verbatim,
                auto_decompress=False,
                timeout=self._timeout,
            )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _body(request: httpx.Request) -> bytes | httpx.AsyncByteStream | None:
    if isinstance(request.stream, httpx.ByteStream):
        return b"".join(request.stream) or None
    assert isinstance(request.stream, httpx.AsyncByteStream)
    return request.stream


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_any():
                yield chunk
        except aiohttp.SocketTimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except aiohttp.ClientError as exc:
            raise httpx.ReadError(repr(exc)) from exc

    async def aclose(self) -> None:
        # Only an answer that was read to its end gives its connection back; this closes any other.
        self._answer.close()
