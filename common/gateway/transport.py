"""Requests to instances, over aiohttp's connections.

Bytes pass as they are: nothing is decoded, no cookie kept, no header added,
no path quoted. Errors are httpx's, as those of all other calls of instances.
Why not httpx's own connections: docs/decisions/0002-gateway-transport.md.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Self, cast

import aiohttp
import httpx
from aiohttp.typedefs import LooseHeaders
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from common.gateway.headers import RawHeaders

CONNECT_SECONDS = 1.0
# Shorter than the services' own 75 seconds, so that the gateway is the side that closes an idle connection.
IDLE_SECONDS = 30
# How long an instance's name is not resolved again: it may lead elsewhere from one moment to the next.
NAME_SECONDS = 1

NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())

TextHeaders = Iterable[tuple[str, str]]


class InstanceResponse:
    """An instance's response, its body as it comes."""

    def __init__(self, response: "_Response") -> None:
        self._response = response
        self._buffered: bytes | None = None
        self.status = response.status
        self.content_type: str | None = response.headers.get("Content-Type")

    @property
    def headers(self) -> RawHeaders:
        """As they came, but for their names, which are in lower case."""
        return [(name.lower(), value) for name, value in self._response.raw_headers]

    async def buffer(self) -> bytes:
        """All of the body, to look into; it can still be read."""
        chunks = []
        while not self.is_complete:
            chunks.append(await self.read())
        self._buffered = b"".join(chunks)
        return self._buffered

    @property
    def is_complete(self) -> bool:
        """Whether all of the body has been read."""
        return self._buffered is None and self._response.content.at_eof()

    async def read(self) -> bytes:
        """The bytes of the body that have come; waits until there are some, or until its end.

        Raises httpx.ReadTimeout, httpx.ReadError.
        """
        if self._buffered is not None:
            content, self._buffered = self._buffered, None
            return content
        try:
            return await self._response.content.readany()
        except aiohttp.SocketTimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except aiohttp.ClientError as exc:
            raise httpx.ReadError(repr(exc)) from exc

    def forget_headers(self) -> None:
        """Free them: a stream is open for hours."""
        self._response.forget_headers()

    def close(self) -> None:
        """Close the connection, unless the response is complete and the connection free again."""
        if self._response.connection is not None:
            self._response.close()


class _Response(aiohttp.ClientResponse):
    """A response that need not keep its headers, nor those of the request."""

    def forget_headers(self) -> None:
        self._raw_headers = ()
        self._headers = NO_HEADERS
        self._request_info = self._request_info._replace(headers=NO_HEADERS)


class _Verbatim(aiohttp.ClientRequest):
    """A request to which aiohttp adds no header but the host: its `skip_auto_headers`, computed once."""

    _skip_auto_headers = CIMultiDict([("Content-Type", None)])

    def update_headers(self, headers: LooseHeaders | None) -> None:
        """Take them all at once: there is no host among them."""
        super().update_headers(None)
        self.headers.extend(headers or ())

    def update_auto_headers(self, skip_auto_headers: object) -> None:
        """Add nothing."""


class Transport:
    """Sends requests to instances. Its connections live as long as the `async with`."""

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
            response_class=_Response,
            auto_decompress=False,
            timeout=self._timeout,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(
        self,
        method: str,
        netloc: str,
        target: str,
        headers: TextHeaders,
        body: bytes | AsyncIterator[bytes] = b"",
        read_seconds: float | None = None,
    ) -> InstanceResponse:
        """Send this to an instance; `target` is path and query, `read_seconds` is for this request.

        Raises httpx.ConnectError if there was no connection to send on, else another httpx.TransportError.
        """
        try:
            response = await self._session.request(
                method,
                URL(f"http://{netloc}{target}", encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                timeout=_timeout(read_seconds) if read_seconds else self._timeout,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as exc:
            raise httpx.ConnectError(str(exc)) from exc
        except aiohttp.SocketTimeoutError as exc:
            raise httpx.ReadTimeout(str(exc)) from exc
        except aiohttp.ClientError as exc:
            raise httpx.RemoteProtocolError(repr(exc)) from exc
        return InstanceResponse(cast("_Response", response))


def _timeout(read_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None, connect=2 * CONNECT_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=read_seconds
    )
