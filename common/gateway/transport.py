"""httpx's requests and responses over aiohttp's connections.

Bytes pass as they are: nothing is decoded, no cookie kept, no header added,
no path quoted. Why not httpx's own connections: docs/decisions/0002-gateway-transport.md.
"""

from collections.abc import AsyncIterator
from typing import Self

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

CONNECT_SECONDS = 1.0
# Shorter than the services' own 75 seconds, so that the gateway is the side that closes an idle connection.
IDLE_SECONDS = 30
# How long an instance's name is not resolved again: it may lead elsewhere from one moment to the next.
NAME_SECONDS = 1


class Body(httpx.AsyncByteStream):
    """The body of an instance's response, as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def read_whole(self) -> "ReadBody":
        """All of it, to look into."""
        content = b"".join([chunk async for chunk in self])
        return ReadBody(self._response, content)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.is_complete:
            yield await self.read()

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has been read."""
        return self._response.content.at_eof()

    async def read(self) -> bytes:
        """The bytes of the body that have come; waits until there are some, or until its end."""
        try:
            return await self._response.content.readany()
        except aiohttp.SocketTimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except aiohttp.ClientError as exc:
            raise httpx.ReadError(repr(exc)) from exc

    def close(self) -> None:
        """Close the connection, unless the response is complete and the connection free again."""
        self._response.close()

    async def aclose(self) -> None:
        self.close()


class ReadBody(Body):
    """A body that has been read, and can be read once more."""

    def __init__(self, response: aiohttp.ClientResponse, content: bytes) -> None:
        super().__init__(response)
        self.content = content
        self._is_complete = False

    @property
    def is_complete(self) -> bool:
        return self._is_complete

    async def read(self) -> bytes:
        self._is_complete = True
        return self.content


class _Verbatim(aiohttp.ClientRequest):
    """A request to which aiohttp adds no header: its `skip_auto_headers`, computed once."""

    _skip_auto_headers = CIMultiDict([("Content-Type", None)])

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        """Add nothing."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests to instances. Its connections live as long as the `async with`.

    Two extensions of a request are sent as they are: `target`, the path and
    query, and `raw_headers`, pairs of text (httpx's own headers cost a GET a
    twentieth of its time). A third one, `read_seconds`, is for this request.
    """

    def __init__(self, read_seconds: float) -> None:
        """`read_seconds` bounds the time between two reads."""
        self._timeout = _timeout(read_seconds)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # The bulkhead counts requests: a queue here would look like an instance that does not respond.
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=IDLE_SECONDS, ttl_dns_cache=NAME_SECONDS
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            request_class=_Verbatim,
            auto_decompress=False,
            timeout=self._timeout,
        )
        return self

    async def aclose(self) -> None:
        await self._session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ConnectError if there was no connection to send on, else another httpx.TransportError."""
        extensions = request.extensions
        read_seconds = extensions.get("read_seconds")
        url = URL(f"http://{request.url.netloc.decode()}{extensions['target']}", encoded=True)
        try:
            response = await self._session.request(
                request.method,
                url,
                headers=extensions["raw_headers"],
                data=_content(request.stream),
                allow_redirects=False,
                timeout=_timeout(read_seconds) if read_seconds else self._timeout,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise httpx.ConnectError(str(exc)) from exc
        except aiohttp.SocketTimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except aiohttp.ClientError as exc:
            raise httpx.RemoteProtocolError(repr(exc)) from exc
        # httpx would search its headers for it, which costs more than all else here.
        content_type = {"content_type": response.headers.get("Content-Type")}
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=Body(response), extensions=content_type
        )


def _timeout(read_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None, connect=2 * CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=read_seconds
    )


def _content(stream: object) -> bytes | httpx.AsyncByteStream | None:
    if isinstance(stream, httpx.ByteStream):
        return b"".join(stream) or None
    assert isinstance(stream, httpx.AsyncByteStream)
    return stream
