"""Forwards requests to the instances of services, and tries again where that is safe."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import httpx
from starlette.types import Receive, Scope, Send

from common import telemetry
from common.balancer import Balancer
from common.errors import (
    BadGateway,
    BadRequest,
    GatewayTimeout,
    NotFound,
    Problem,
    TooLarge,
    Unavailable,
    render,
)
from common.registry import Directory, Instance

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
    b"host", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"x-request-id", b"traceparent",
}  # fmt: skip

# What this server says in every answer itself.
SAID_HERE = {b"date", b"x-request-id"}

LENGTHS = {b"content-length", b"transfer-encoding"}

RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Destination:
    """Where a path leads, and whether its POST may be repeated under an `Idempotency-Key`."""

    service_name: str
    honours_key: bool = False


Resolve = Callable[[bytes], Destination | None]


class Forwarder:
    """An ASGI endpoint in front of all that `resolve` knows a way to."""

    def __init__(self, directory: Directory, transport: httpx.AsyncBaseTransport, resolve: Resolve) -> None:
        self._balancer = Balancer(directory)
        self._transport = transport
        self._resolve = resolve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            exchange = Exchange(scope, receive, self._destination(scope["raw_path"]))
            await exchange.read_body()
            with _until_gone(exchange):
                await self._forward(exchange, send)
        except Problem as problem:
            await render(problem)(scope, receive, send)
        except ClientGone:
            return

    def _destination(self, path: bytes) -> Destination:
        if _has_dot_segment(path):
            raise BadRequest("dot_segment", "A path has no segments . and .. here.")
        destination = self._resolve(path)
        if destination is None:
            raise NotFound("not_found", "There is nothing at this path.")
        return destination

    async def _forward(self, exchange: "Exchange", send: Send) -> None:
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                instance, answer = await self._answer(exchange)
        except TimeoutError as exc:
            raise _timeout(exchange) from exc
        with self._balancer.busy(instance):
            await _pass_on(answer, send)

    async def _answer(self, exchange: "Exchange") -> tuple[Instance, httpx.Response]:
        """The first answer that is one; the last problem met, if there is none."""
        name = exchange.destination.service_name
        problem: Problem = Unavailable(f"{name}_unavailable", f"No instance of {name} can be reached.")
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
        raise problem

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

    def __init__(self, scope: Scope, receive: Receive, destination: Destination) -> None:
        self._scope = scope
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._body: bytes | AsyncIterator[bytes] = b""
        self.receive = receive
        self.destination = destination
        # What went wrong on the client's side while its body was passed on.
        self.failure: Exception | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be sent again although it may have been received (RFC 9110, §9.2.2)."""
        if not isinstance(self._body, bytes):
            return False
        if self._scope["method"] in IDEMPOTENT:
            return True
        return self.destination.honours_key and any(name == b"idempotency-key" for name, _ in self._headers)

    @property
    def is_held(self) -> bool:
        return isinstance(self._body, bytes)

    async def read_body(self) -> None:
        """Hold a small body, so that it can be sent again; others stream."""
        names = {name: value for name, value in self._headers if name in LENGTHS}
        if b"transfer-encoding" in names:
            self._body = self._stream()
        elif (length := int(names.get(b"content-length", 0))) > LARGEST_BODY_BYTES:
            raise _too_large()
        elif length > REPLAYABLE_BYTES:
            self._body = self._stream()
        elif length:
            self._body = b"".join([chunk async for chunk in self._stream()])

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
        path, query = self._scope["raw_path"], self._scope["query_string"]
        return httpx.Request(
            self._scope["method"],
            f"http://{instance.netloc}/",
            headers=[(b"host", instance.netloc.encode()), *self._forwarded_headers()],
            content=self._body,
            # The bytes that the client sent, not what a URL parser makes of them.
            extensions={"target": path + b"?" + query if query else path},
        )

    def _forwarded_headers(self) -> Iterator[tuple[bytes, bytes]]:
        dropped = HOP_BY_HOP | OURS | _named_by_connection(self._headers)
        for name, value in self._headers:
            if name not in dropped:
                yield name, value
            if name == b"host":
                yield b"x-forwarded-host", value
        client, _ = self._scope["client"] or ("unknown", 0)
        yield b"x-forwarded-for", client.encode()
        yield b"x-forwarded-proto", self._scope["scheme"].encode()
        yield b"x-request-id", telemetry.request_id.get().encode()
        yield b"traceparent", telemetry.traceparent.get().encode()


class ClientGone(Exception):
    """There is nobody left to answer."""


@contextmanager
def _until_gone(exchange: Exchange) -> Iterator[None]:
    """Stop what is being done for a client that goes away.

    A client is looked after only when its answer takes a while: most are
    answered before, and looking costs a task.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    lookouts: list[asyncio.Task[None]] = []

    async def look_out() -> None:
        while (await exchange.receive())["type"] != "http.disconnect":
            pass
        assert task is not None
        task.cancel(ClientGone)

    timer = loop.call_later(PATIENCE_SECONDS, lambda: lookouts.append(loop.create_task(look_out())))
    if not exchange.is_held:
        timer.cancel()  # its body is still being read
    try:
        yield
    except asyncio.CancelledError as exc:
        if exc.args != (ClientGone,):
            raise
    finally:
        timer.cancel()
        for lookout in lookouts:
            lookout.cancel()


async def _pass_on(answer: httpx.Response, send: Send) -> None:
    dropped = HOP_BY_HOP | _named_by_connection(answer.headers.raw) | SAID_HERE
    headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in dropped]
    try:
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        async for chunk in answer.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await answer.aclose()


def _named_by_connection(headers: RawHeaders) -> set[bytes]:
    values = [value for name, value in headers if name.lower() == b"connection"]
    return {token.strip().lower() for value in values for token in value.split(b",")}


def _has_dot_segment(path: bytes) -> bool:
    if b"." not in path and b"%2" not in path:
        return False
    return any(segment in {b".", b".."} for segment in re.split(rb"[/\\]", unquote_to_bytes(path)))


def _too_large() -> TooLarge:
    return TooLarge("body_too_large", f"A body has at most {LARGEST_BODY_BYTES} bytes.")


def _timeout(exchange: Exchange) -> GatewayTimeout:
    return GatewayTimeout("timeout", f"{exchange.destination.service_name} did not answer in time.")


def _broken_off(exchange: Exchange) -> BadGateway:
    """The request may or may not have had its effect: whoever sent it has to look before sending it again."""
    return BadGateway("bad_gateway", f"{exchange.destination.service_name} broke off before it answered.")
