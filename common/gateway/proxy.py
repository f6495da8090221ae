"""Forwards requests to the instances of services, and retries where that is safe."""

import logging
import re
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from functools import cache
from urllib.parse import unquote_to_bytes

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from common.api.problems import render
from common.bulkhead import Bulkhead, BulkheadFull
from common.discovery.balancer import UPSTREAM_FAILURES, Attempt, Balancer
from common.discovery.call import Call
from common.discovery.directory import Directory
from common.discovery.identity import UnknownRoute, WrongInstance, is_foreign, is_unknown_route
from common.discovery.models import Instance
from common.errors import Problem
from common.gateway import errors
from common.gateway.forwarded_request import ClientDisconnected, ForwardedRequest
from common.gateway.forwarded_response import send_response
from common.gateway.login_limits import LoginLimiter
from common.gateway.rate_limits import Limiter
from common.gateway.routes import Match, Route
from common.gateway.streams import Streams, is_stream
from common.gateway.transport import InstanceResponse, Transport
from common.gateway.watchdog import Watchdog
from common.telemetry import metrics

logger = logging.getLogger(__name__)

READ_SECONDS = 5.0

# For each service, so that one that hangs holds up no requests to the others.
MAX_CONCURRENT_REQUESTS = 256
MAX_WAIT_SECONDS = 1.0


class ReverseProxy:
    """ASGI middleware: requests that `match` has a route for go to an instance, all others to `app`."""

    def __init__(
        self,
        app: ASGIApp,
        directory: Directory,
        transport: Transport,
        match: Match,
        limiter: Limiter | None = None,
        login_limiter: LoginLimiter | None = None,
        streams: Streams | None = None,
    ) -> None:
        self._app = app
        self._balancer = Balancer(directory)
        self._bulkhead = cache(lambda name: Bulkhead(MAX_CONCURRENT_REQUESTS, MAX_WAIT_SECONDS))
        self._watchdog = Watchdog()
        self._transport = transport
        self._match = match
        self._limiter = limiter
        self._login_limiter = login_limiter
        self._streams = streams or Streams()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and (route := self._match(scope["raw_path"], scope["method"])):
            scope["route"] = route
            return self._forward(route, scope, receive, send)
        return self._app(scope, receive, send)

    async def _forward(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        request = ForwardedRequest(route, scope, receive)
        try:
            _reject_dot_segments(scope["raw_path"])
            await request.read_body()
            if self._limiter and route.policy:
                await self._limiter.check(route.policy, request.caller)
            if self._login_limiter and route.is_sign_in:
                send = await self._login_limiter.guard(request, send)
            with self._watchdog.watch(request):
                async with self._place(request):
                    await self._try_instances(request, send)
        except BulkheadFull:
            metrics.bulkhead_refusals.add(route.service_name)
            await render(errors.overloaded(route.service_name))(scope, receive, send)
        except Problem as problem:
            await render(problem)(scope, receive, send)
        except ClientDisconnected:
            return

    def _place(self, request: ForwardedRequest) -> AbstractAsyncContextManager[None]:
        """What a request takes up while it is under way; a stream, which is for hours, none of the others."""
        if request.route.is_stream:
            return self._streams.place(request.caller.address)
        return self._bulkhead(request.route.service_name)

    async def _try_instances(self, request: ForwardedRequest, send: Send) -> None:
        """Send the first response that an instance gives; raises the last problem if none does."""
        name = request.route.service_name
        problem: Problem | None = None
        for attempt in self._balancer.attempts(name):
            try:
                await self._try_instance(request, attempt, send)
            except httpx.TransportError as exc:
                if request.failure:
                    raise request.failure from exc
                logger.warning("%s at %s failed: %r", name, attempt.instance.netloc, exc)
                if isinstance(exc, WrongInstance) and not isinstance(request.body, bytes):
                    raise request.bad_gateway_error() from exc  # the body has gone there, and nowhere else
                if isinstance(exc, httpx.ConnectError):
                    continue  # no instance has got the request, so anything may be sent to another one
                problem = request.error_of(exc)
                if not request.is_retryable:
                    break
            else:
                return
        raise problem or errors.unavailable(name)

    async def _try_instance(self, request: ForwardedRequest, attempt: Attempt, send: Send) -> None:
        with attempt:
            response = await self._send_request(request, attempt.instance)
            request.has_response = True
            if not is_stream(response):
                await send_response(response, attempt, send)
                return
        # A stream keeps no instance busy: the balancer would send all other requests elsewhere.
        request.forget_headers()
        await self._streams.send(response, attempt, send)

    async def _send_request(self, request: ForwardedRequest, instance: Instance) -> InstanceResponse:
        with Call(instance, request.method, request.path) as call:
            response = await request.send(self._transport, instance.netloc)
            call.status = response.status
        try:
            await self._require_own(request, instance, response)
        except httpx.TransportError:
            response.close()
            raise
        return response

    async def _require_own(
        self, request: ForwardedRequest, instance: Instance, response: InstanceResponse
    ) -> None:
        """Raise unless the instance itself says this, and not something else at its address."""
        status = response.status
        if status in UPSTREAM_FAILURES:
            raise httpx.RemoteProtocolError(f"status {status}")
        if is_foreign(status, response.content_type):
            raise WrongInstance(f"{status} is not from {instance.service_name}")
        if status == 404 and await self._is_unknown_route(request, instance, response):
            raise UnknownRoute(f"{instance.service_name}: this instance lacks the route")

    async def _is_unknown_route(
        self, request: ForwardedRequest, instance: Instance, response: InstanceResponse
    ) -> bool:
        if request.has_escaped_slash:
            return False  # a service reads it as a slash, so that the right one has no route either
        if request.method == "HEAD":  # only a GET says why
            response = await request.send(self._transport, instance.netloc, "GET")
        return is_unknown_route(response.status, await response.buffer())


def _reject_dot_segments(path: bytes) -> None:
    if b"." not in path and b"%2" not in path:
        return
    if not {b".", b".."}.isdisjoint(re.split(rb"[/\\]", unquote_to_bytes(path))):
        raise errors.dot_segment()
