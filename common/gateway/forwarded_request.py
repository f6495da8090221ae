"""One client's request, as it is sent on."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import lru_cache

import httpx
from starlette.types import Receive, Scope

from common.discovery.models import Instance
from common.errors import BadGateway, Problem
from common.gateway import errors
from common.gateway.errors import MAX_BODY_BYTES
from common.gateway.headers import NOT_FORWARDED, end_to_end_headers
from common.gateway.rate_limits import Caller
from common.gateway.routes import Route
from common.telemetry import context

REPLAYABLE_BYTES = 64 * 1024

IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}

BEARER = b"bearer "


class ClientDisconnected(Exception):
    """There is nobody left to answer."""


class ForwardedRequest:
    """One client's request, as it is sent on to an instance: or to several, one after the other."""

    def __init__(self, route: Route, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        # What is for this hop alone says nothing, to the limits or to anybody.
        self._headers = end_to_end_headers(scope["headers"])
        # Of a header that is there more than once the first counts, as it does for the services.
        self._header = dict(reversed(self._headers)).get
        self._body: bytes | AsyncIterator[bytes] = b""
        # Whether all of it has come.
        self._body_received = True
        self.receive = receive
        self.route = route
        self.is_answered = False
        # What went wrong on the client's side while its body was passed on.
        self.failure: Exception | None = None

    @property
    def caller(self) -> Caller:
        """Where the request comes from, for the rate limits."""
        value = self._header(b"authorization")
        has_token = value is not None and value[: len(BEARER)].lower() == BEARER
        return Caller(self._client, value[len(BEARER) :].strip() if value and has_token else None)

    @property
    def _client(self) -> str:
        address, _ = self._scope["client"] or ("unknown", 0)
        return str(address)

    @property
    def content_type(self) -> bytes:
        return self._header(b"content-type") or b""

    @property
    def buffered_body(self) -> bytes:
        """The body, if it is small."""
        return self._body if isinstance(self._body, bytes) else b""

    @property
    def is_retryable(self) -> bool:
        """Whether it may be sent again although it may have been received (RFC 9110, §9.2.2)."""
        if not isinstance(self._body, bytes):
            return False
        if self._scope["method"] in IDEMPOTENT:
            return True
        return self.route.honours_idempotency_key and self._header(b"idempotency-key") is not None

    @property
    def _is_traced(self) -> bool:
        """Whether the trace is the client's, and not made anew: only then is its state what it says."""
        return self._header(b"traceparent") == context.traceparent.get().encode()

    async def wait_for_disconnect(self) -> None:
        """Wait for the client to hang up; for ever while its body is still to be read."""
        if not isinstance(self._body, bytes):
            await asyncio.Event().wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def read_body(self) -> None:
        """Hold a small body, so that it can be looked at and sent again; a larger one streams."""
        length = int(self._header(b"content-length") or 0)
        if not length and self._header(b"transfer-encoding") is None:
            return
        if length > MAX_BODY_BYTES:
            raise errors.body_too_large()
        chunks, held = self._stream(), bytearray()
        async for chunk in chunks:
            held += chunk
            if len(held) > REPLAYABLE_BYTES:
                self._body = _with_prefix(bytes(held), chunks)
                return
        self._body = bytes(held)

    async def _stream(self) -> AsyncIterator[bytes]:
        received, self._body_received = 0, False
        while not self._body_received:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.failure = ClientDisconnected()
                raise self.failure
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > MAX_BODY_BYTES:
                self.failure = errors.body_too_large()
                raise self.failure
            self._body_received = not message.get("more_body", False)
            yield chunk

    def build_request(self, instance: Instance) -> httpx.Request:
        path, query, body = self._scope["raw_path"], self._scope["query_string"], self._body
        return httpx.Request(
            self._scope["method"],
            _url(instance.netloc),
            headers=[(b"host", instance.netloc.encode()), *self._forwarded_headers()],
            stream=httpx.ByteStream(body) if isinstance(body, bytes) else _BodyStream(body),
            # The bytes that the client sent, not what a URL parser makes of them.
            extensions={"target": path + b"?" + query if query else path},
        )

    def timeout_error(self) -> Problem:
        if not self._body_received:
            return errors.body_too_slow()
        return errors.timeout(self.route.service_name)

    def bad_gateway_error(self) -> BadGateway:
        return errors.bad_gateway(self.route.service_name)

    def _forwarded_headers(self) -> Iterator[tuple[bytes, bytes]]:
        for name, value in self._headers:
            if name not in NOT_FORWARDED and b"_" not in name and not name.startswith(b"x-user-"):
                yield name, value
            elif name == b"host":
                yield b"x-forwarded-host", value
            elif name == b"tracestate" and self._is_traced:
                yield name, value
        yield b"x-forwarded-for", self._client.encode()
        yield b"x-forwarded-proto", self._scope["scheme"].encode()
        yield from context.outgoing_raw_headers()


class _BodyStream(httpx.AsyncByteStream):
    """A body as it comes in."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


async def _with_prefix(held: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield held
    async for chunk in rest:
        yield chunk


@lru_cache(1000)
def _url(netloc: str) -> httpx.URL:
    return httpx.URL(f"http://{netloc}/")
