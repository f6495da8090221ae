"""Forwards requests to the instances of services, and tries again where that is safe."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from common import telemetry
from common.balancer import Balancer
from common.errors import (
    BadGateway,
    BadRequest,
    GatewayTimeout,
    Problem,
    TooLarge,
    Unavailable,
)
from common.limits import Limiter, Policy
from common.registry import Directory, Instance
from common.rendering import render

logger = logging.getLogger(__name__)

ATTEMPTS = 3
READ_SECONDS = 5.0
TOTAL_SECONDS = 15.0
PATIENCE_SECONDS = 0.5
REPLAYABLE_BYTES = 64 * 1024
LARGEST_BODY_BYTES = 1024 * 1024

IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}
# The instance is broken or cannot reach its own; a 503 is the service's own word and is passed on.
BROKEN = {502, 504}

# RFC 9110, §7.6.1, and the older ones that it names.
HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection",
    b"te", b"trailer", b"transfer-encoding", b"upgrade",
}  # fmt: skip
# What only this side may say; Host becomes the instance's.
OURS = {
    b"host", b"content-length", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"x-request-id", b"traceparent",
}  # fmt: skip

NOT_FORWARDED = HOP_BY_HOP | OURS
# What this server says in every answer itself.
NOT_RETURNED = HOP_BY_HOP | {b"date", b"x-request-id"}

BEARER = b"bearer "

RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Destination:
    """Where a path leads, how often a client may go there, and whether its POST honours `Idempotency-Key`."""

    service_name: str
    policy: Policy | None = None
    honours_key: bool = False


Resolve = Callable[[bytes], Destination | None]


class Forwarder:
    """ASGI middleware that answers all that `resolve` knows a way to; the rest is the app's own."""

    def __init__(
        self,
        app: ASGIApp,
        directory: Directory,
        transport: httpx.AsyncBaseTransport,
        resolve: Resolve,
        limiter: Limiter | None = None,
    ) -> None:
        self._app = app
        self._balancer = Balancer(directory)
        self._transport = transport
        self._resolve = resolve
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (destination := self._resolve(scope["raw_path"])):
            await self._forward(destination, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _forward(self, destination: Destination, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            _require_plain(scope["raw_path"])
            exchange = Exchange(destination, scope, receive)
            await exchange.read_body()
            limiter, policy = self._limiter, destination.policy
            if limiter and policy:
                await limiter.admit(policy, exchange)
            async with Lookout(exchange):
                instance, answer = await self._answer(exchange)
                exchange.is_answered = True
                if limiter and policy and answer.status_code == HTTPStatus.OK:
                    await limiter.succeeded(policy, exchange)
                await self._pass_on(instance, answer, send)
        except Problem as problem:
            await render(problem)(scope, receive, send)
        except ClientGone:
            return

    async def _pass_on(self, instance: Instance, answer: httpx.Response, send: Send) -> None:
        try:
            with self._balancer.busy(instance):
                await _pass_on(answer, send)
        except httpx.TransportError as exc:
            # The server ends the connection in the middle: the client sees that this is not all.
            self._balancer.failed(instance, connected=True)
            logger.warning("%s broke off in the middle of an answer: %r", instance.netloc, exc)

    async def _answer(self, exchange: "Exchange") -> tuple[Instance, httpx.Response]:
        """The first answer that is one; the last problem met, if there is none."""
        name = exchange.destination.service_name
        problem: Problem | None = None
        tried: list[Instance] = []
        while len(tried) < ATTEMPTS and (instance := self._balancer.choose(name, tried)):
            tried.append(instance)
            try:
                return instance, await self._ask(exchange, instance)
            except httpx.ConnectError:
                # Nothing was sent, so anything may be sent elsewhere.
                self._balancer.failed(instance, connected=False)
            except httpx.TransportError as exc:
                if exchange.failure:
                    raise exchange.failure from exc
                self._balancer.failed(instance, connected=True)
                problem = _timeout(exchange) if isinstance(exc, httpx.ReadTimeout) else _broken_off(exchange)
                if not exchange.is_repeatable:
                    break
            logger.warning("%s at %s is passed over", name, instance.netloc)
        raise problem or Unavailable(f"{name}_unavailable", f"No instance of {name} can be reached.")

    async def _ask(self, exchange: "Exchange", instance: Instance) -> httpx.Response:
        with self._balancer.busy(instance):
            answer = await self._transport.handle_async_request(exchange.request_to(instance))
        if answer.status_code in BROKEN:
            await answer.aclose()
            raise httpx.RemoteProtocolError(f"status {answer.status_code}")
        self._balancer.succeeded(instance)
        return answer


class Exchange:
    """One client's request, as it is sent on to an instance: or to several, one after the other."""

    def __init__(self, destination: Destination, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        # Of a header that is there more than once the first counts, as it does for the services.
        self._header = dict(reversed(self._headers)).get
        self._body: bytes | AsyncIterator[bytes] = b""
        self.receive = receive
        self.destination = destination
        self.is_answered = False
        # What went wrong on the client's side while its body was passed on.
        self.failure: Exception | None = None

    @property
    def client(self) -> str:
        """The address that the request came from."""
        address, _ = self._scope["client"] or ("unknown", 0)
        return str(address)

    @property
    def bearer(self) -> bytes | None:
        """The token in it, good or not."""
        value = self._header(b"authorization")
        return value[len(BEARER) :].strip() if value and value[: len(BEARER)].lower() == BEARER else None

    @property
    def content_type(self) -> bytes:
        return self._header(b"content-type") or b""

    @property
    def held_body(self) -> bytes:
        """The body, if it is small."""
        return self._body if isinstance(self._body, bytes) else b""

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again although it may have been received (RFC 9110, §9.2.2)."""
        if not isinstance(self._body, bytes):
            return False
        if self._scope["method"] in IDEMPOTENT:
            return True
        return self.destination.honours_key and self._header(b"idempotency-key") is not None

    async def until_gone(self) -> None:
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
        if length > LARGEST_BODY_BYTES:
            raise _too_large()
        chunks, held = self._stream(), bytearray()
        async for chunk in chunks:
            held += chunk
            if len(held) > REPLAYABLE_BYTES:
                self._body = _resumed(bytes(held), chunks)
                return
        self._body = bytes(held)

    async def _stream(self) -> AsyncIterator[bytes]:
        received = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.failure = ClientGone()
                raise self.failure
            chunk: bytes = message.get("body", b"")
            received += len(chunk)
            if received > LARGEST_BODY_BYTES:
                self.failure = _too_large()
                raise self.failure
            yield chunk
            if not message.get("more_body", False):
                return

    def request_to(self, instance: Instance) -> httpx.Request:
        path, query, body = self._scope["raw_path"], self._scope["query_string"], self._body
        return httpx.Request(
            self._scope["method"],
            _url(instance.netloc),
            headers=[(b"host", instance.netloc.encode()), *self._forwarded_headers()],
            stream=httpx.ByteStream(body) if isinstance(body, bytes) else _Chunks(body),
            # The bytes that the client sent, not what a URL parser makes of them.
            extensions={"target": path + b"?" + query if query else path},
        )

    def _forwarded_headers(self) -> Iterator[tuple[bytes, bytes]]:
        dropped = NOT_FORWARDED | _named_by_connection(self._headers)
        for name, value in self._headers:
            if name not in dropped and b"_" not in name and not name.startswith(b"x-user-"):
                yield name, value
            elif name == b"host":
                yield b"x-forwarded-host", value
        yield b"x-forwarded-for", self.client.encode()
        yield b"x-forwarded-proto", self._scope["scheme"].encode()
        yield b"x-request-id", telemetry.request_id.get().encode()
        yield b"traceparent", telemetry.traceparent.get().encode()


class _Chunks(httpx.AsyncByteStream):
    """A body as it comes in."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks


class ClientGone(Exception):
    """There is nobody left to answer."""


class Lookout:
    """Ends an exchange whose client has gone, or whose answer does not come in time.

    Only one that takes a while is looked after: most are over before, and a
    task for each would cost more than all else here.
    """

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        self._looking: asyncio.Task[None] | None = None
        self._reason: Exception | None = None

    async def __aenter__(self) -> Self:
        self._exchanging = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._looking:
            self._looking.cancel()
        if self._reason and kind is asyncio.CancelledError:
            assert self._exchanging
            self._exchanging.uncancel()
            raise self._reason from exc

    def _begin(self) -> None:
        self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(TOTAL_SECONDS - PATIENCE_SECONDS):
                await self._exchange.until_gone()
        except TimeoutError:
            if not self._exchange.is_answered:
                self._end(_timeout(self._exchange))
                return
            await self._exchange.until_gone()
        self._end(ClientGone())

    def _end(self, reason: Exception) -> None:
        assert self._exchanging
        self._reason = reason
        self._exchanging.cancel()


async def _pass_on(answer: httpx.Response, send: Send) -> None:
    lowered = [(name.lower(), value) for name, value in answer.headers.raw]
    dropped = NOT_RETURNED | _named_by_connection(lowered)
    headers = [header for header in lowered if header[0] not in dropped]
    missing = next((int(value) for name, value in headers if name == b"content-length"), -1)
    is_over = False
    try:
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        # Not aiter_raw(), which checks and counts what nobody asks for.
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        async for chunk in answer.stream:
            missing -= len(chunk)
            is_over = missing == 0
            await send({"type": "http.response.body", "body": chunk, "more_body": not is_over})
        if not is_over:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await answer.aclose()


async def _resumed(held: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield held
    async for chunk in rest:
        yield chunk


@lru_cache(1000)
def _url(netloc: str) -> httpx.URL:
    return httpx.URL(f"http://{netloc}/")


def _named_by_connection(headers: RawHeaders) -> set[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}


def _require_plain(path: bytes) -> None:
    if b"." not in path and b"%2" not in path:
        return
    if not {b".", b".."}.isdisjoint(re.split(rb"[/\\]", unquote_to_bytes(path))):
        raise BadRequest("dot_segment", "A path has no segments . and .. here.")


def _too_large() -> TooLarge:
    return TooLarge("body_too_large", f"A body has at most {LARGEST_BODY_BYTES} bytes.")


def _timeout(exchange: Exchange) -> GatewayTimeout:
    return GatewayTimeout("timeout", f"{exchange.destination.service_name} did not answer in time.")


def _broken_off(exchange: Exchange) -> BadGateway:
    """The request may or may not have had its effect: whoever sent it has to look before sending it again."""
    return BadGateway("bad_gateway", f"{exchange.destination.service_name} broke off before it answered.")
