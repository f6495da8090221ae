"""Forwards requests to the instances of services, and tries again where that is safe."""

import logging
import re
from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from common.api.problems import render
from common.discovery.balancer import Balancer
from common.discovery.directory import Directory
from common.discovery.models import Instance
from common.errors import BadRequest, Problem, Unavailable
from common.gateway.bulkhead import Bulkhead
from common.gateway.forwarded_request import ClientGone, Exchange
from common.gateway.headers import HOP_BY_HOP, connection_tokens
from common.gateway.rate_limits import Limiter
from common.gateway.routes import Destination
from common.gateway.watchdog import Lookout

logger = logging.getLogger(__name__)

ATTEMPTS = 3
READ_SECONDS = 5.0

# The instance is broken or cannot reach its own; a 503 is the service's own word and is passed on.
BROKEN = {502, 504}

# Of registering and of signing in.
MADE_OR_RIGHT = {HTTPStatus.CREATED, HTTPStatus.OK}

# What this server says in every answer itself.
NOT_RETURNED = HOP_BY_HOP | {b"date", b"x-request-id", b"traceparent"}

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
        # One for each service.
        self._bulkhead = cache(Bulkhead)
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
            async with Lookout(exchange), self._bulkhead(destination.service_name):
                instance, answer = await self._answer(exchange)
                exchange.is_answered = True
                if limiter and policy and answer.status_code in MADE_OR_RIGHT:
                    await limiter.succeeded(policy, exchange)
                await self._pass_on(instance, answer, send)
        except Problem as problem:
            await render(problem)(scope, receive, send)
        except ClientGone:
            return

    async def _pass_on(self, instance: Instance, answer: httpx.Response, send: Send) -> None:
        try:
            with self._balancer.busy(instance):
                await _relay(answer, send)
        except httpx.TransportError as exc:
            # The server ends the connection in the middle: the client sees that this is not all.
            self._balancer.failed(instance, connected=True)
            logger.warning("%s broke off in the middle of an answer: %r", instance.netloc, exc)

    async def _answer(self, exchange: Exchange) -> tuple[Instance, httpx.Response]:
        """The first answer that is one; the last problem met, if there is none."""
        name = exchange.destination.service_name
        problem: Problem | None = None
        tried: list[Instance] = []
        while len(tried) < ATTEMPTS and (instance := self._balancer.choose(name, tried)):
            tried.append(instance)
            try:
                return instance, await self._ask(exchange, instance)
            except httpx.ConnectError as exc:
                # Nothing was sent, so anything may be sent elsewhere.
                self._failed(instance, exc, connected=False)
            except httpx.TransportError as exc:
                if exchange.failure:
                    raise exchange.failure from exc
                self._failed(instance, exc, connected=True)
                is_late = isinstance(exc, httpx.ReadTimeout)
                problem = exchange.timed_out() if is_late else exchange.broken_off()
                if not exchange.is_repeatable:
                    break
        raise problem or Unavailable(f"{name}_unavailable", f"No instance of {name} can be reached.")

    def _failed(self, instance: Instance, reason: Exception, connected: bool) -> None:
        self._balancer.failed(instance, connected)
        logger.warning("%s at %s failed: %r", instance.service_name, instance.netloc, reason)

    async def _ask(self, exchange: Exchange, instance: Instance) -> httpx.Response:
        with self._balancer.busy(instance):
            answer = await self._transport.handle_async_request(exchange.request_to(instance))
        if answer.status_code in BROKEN:
            await answer.aclose()
            raise httpx.RemoteProtocolError(f"status {answer.status_code}")
        self._balancer.succeeded(instance)
        return answer


async def _relay(answer: httpx.Response, send: Send) -> None:
    lowered = [(name.lower(), value) for name, value in answer.headers.raw]
    dropped = NOT_RETURNED | connection_tokens(lowered)
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


def _require_plain(path: bytes) -> None:
    if b"." not in path and b"%2" not in path:
        return
    if not {b".", b".."}.isdisjoint(re.split(rb"[/\\]", unquote_to_bytes(path))):
        raise BadRequest("dot_segment", "A path has no segments . and .. here.")
