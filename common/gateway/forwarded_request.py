"""One client's request, as it is sent on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from urllib.parse import unquote

import httpx
from starlette.types import Receive, Scope

from common.errors import BadGateway, Problem
from common.gateway import errors
from common.gateway.errors import MAX_BODY_BYTES
from common.gateway.headers import NOT_FORWARDED, end_to_end_headers
from common.gateway.rate_limits import Caller
from common.gateway.routes import Route
from common.gateway.transport import InstanceResponse, Transport
from common.telemetry import context

REPLAYABLE_BYTES = 64 * 1024
# A stream has a comment every three seconds: an instance that says nothing for this long hangs.
STREAM_READ_SECONDS = 10.0

IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}

BEARER = b"bearer "
# In a `traceparent`.
TRACE_ID = slice(3, 35)


class ClientDisconnected(Exception):
    """The client has closed the connection, so no response can reach it."""


class ForwardedRequest:
    """One client's request, as it is sent on to an instance: or to several, one after the other."""

    def __init__(self, route: Route, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        # The limits do not read hop-by-hop headers either.
        self._headers = end_to_end_headers(scope["headers"])
        # Of a repeated header the first counts, as it does for the services.
        self._header = dict(reversed(self._headers)).get
        self._address = str(scope["client"][0]) if scope["client"] else "unknown"
        self._is_body_received = True
        self.receive = receive
        self.route = route
        self.method: str = scope["method"]
        # As the client sent it.
        self.path: str = scope["raw_path"].decode("ascii")
        # A small body is bytes, a larger one the chunks in which it comes.
        self.body: bytes | AsyncIterator[bytes] = b""
        self.has_response = False
        # What went wrong on the client's side while its body was passed on.
        self.failure: Exception | None = None

    @property
    def caller(self) -> Caller:
        """Where the request comes from, for the rate limits."""
        value = self._header(b"authorization")
        has_token = value is not None and value[: len(BEARER)].lower() == BEARER
        return Caller(self._address, value[len(BEARER) :].strip() if value and has_token else None)

    @property
    def content_type(self) -> bytes:
        return self._header(b"content-type") or b""

    def path_segment(self, number: int) -> str:
        """A segment of the path, decoded; the first is 1."""
        return unquote(self._scope["raw_path"].split(b"/")[number].decode("ascii"))

    @property
    def _target(self) -> str:
        """Path and query, byte for byte as the client sent them."""
        query = self._scope["query_string"].decode("ascii")
        return f"{self.path}?{query}" if query else self.path

    @property
    def has_escaped_slash(self) -> bool:
        return b"%2f" in self._scope["raw_path"].lower()

    @property
    def is_retryable(self) -> bool:
        """Whether it may be sent again although it may have been received (RFC 9110, §9.2.2)."""
        if not isinstance(self.body, bytes):
            return False
        if self.method in IDEMPOTENT:
            return True
        return self.route.honours_idempotency_key and self._header(b"idempotency-key") is not None

    def send(
        self, transport: Transport, netloc: str, method: str | None = None
    ) -> Awaitable[InstanceResponse]:
        """Send it to an instance. Raises httpx.TransportError."""
        return transport.send(
            method or self.method,
            netloc,
            self._target,
            self._forwarded_headers(),
            self.body,
            STREAM_READ_SECONDS if self.route.is_stream else None,
        )

    def _forwarded_headers(self) -> list[tuple[str, str]]:
        headers = []
        for name, value in self._headers:
            if name not in NOT_FORWARDED and b"_" not in name and not name.startswith(b"x-user-"):
                headers.append((name.decode("ascii"), value.decode()))
            elif name == b"host":
                headers.append(("x-forwarded-host", value.decode()))
            elif name == b"tracestate" and self._has_own_trace:
                headers.append(("tracestate", value.decode()))
        headers += ("x-forwarded-for", self._address), ("x-forwarded-proto", self._scope["scheme"])
        headers += context.outgoing_headers().items()
        return headers

    @property
    def _has_own_trace(self) -> bool:
        """Whether the client sent the trace; the `tracestate` that it sent says nothing of a new one."""
        # The rest says where in the trace the sender is: here, that may be a span of this process.
        sent, own = self._header(b"traceparent") or b"", context.traceparent.get().encode()
        return sent[TRACE_ID] == own[TRACE_ID]

    def forget_headers(self) -> None:
        """Free them: the client may stay for hours, and nothing is sent on again."""
        self._headers.clear()
        self._scope["headers"].clear()
        self._header = dict(self._headers).get

    async def wait_for_disconnect(self) -> None:
        """Wait for the client to hang up; for ever while its body is still to be read."""
        if not isinstance(self.body, bytes):
            await asyncio.Event().wait()
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def read_body(self) -> None:
        """Buffer a small body, so that it can be read here and sent again; stream a larger one."""
        length = int(self._header(b"content-length") or 0)
        if not length and self._header(b"transfer-encoding") is None:
            return
        if length > MAX_BODY_BYTES:
            raise errors.body_too_large()
        chunks, held = self._stream(), bytearray()
        async for chunk in chunks:
            held += chunk
            if len(held) > REPLAYABLE_BYTES:
                self.body = _with_prefix(bytes(held), chunks)
                return
        self.body = bytes(held)

    async def _stream(self) -> AsyncIterator[bytes]:
        received, self._is_body_received = 0, False
        while not self._is_body_received:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.failure = ClientDisconnected()
                raise self.failure
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > MAX_BODY_BYTES:
                self.failure = errors.body_too_large()
                raise self.failure
            self._is_body_received = not message.get("more_body", False)
            yield chunk

    def timeout_error(self) -> Problem:
        if not self._is_body_received:
            return errors.body_too_slow()
        return errors.timeout(self.route.service_name)

    def error_of(self, failure: httpx.TransportError) -> Problem:
        return self.timeout_error() if isinstance(failure, httpx.ReadTimeout) else self.bad_gateway_error()

    def bad_gateway_error(self) -> BadGateway:
        return errors.bad_gateway(self.route.service_name)


async def _with_prefix(held: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield held
    async for chunk in rest:
        yield chunk
