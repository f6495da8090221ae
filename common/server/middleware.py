"""What every request passes: the request context, the access log, HEAD."""

import logging
import time
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.api.events import REST, Rest
from common.api.problems import internal_error
from common.server.access_log import AccessRecord, access_log, raw_path
from common.telemetry import metrics, traces
from common.telemetry.context import Tracing, outgoing_raw_headers, start_from
from common.telemetry.instruments import OTHER, Readings
from common.telemetry.traces import MAX_PATH, Span

# In the log, as in nginx: the client disconnected before its response.
CLIENT_CLOSED_REQUEST = 499

# HAProxy checks with `OPTIONS /` unless it is told otherwise, and takes 405 for a failure.
CHECKED_PATHS = {"/", "/livez", "/health"}

# What is asked of a scope in the end.
LOGGED = {"type", "method", "scheme", "path", "raw_path", "client", "route"}


class RequestContext:
    """ASGI middleware: accept or make request id and trace, return both; log and measure the request."""

    def __init__(self, app: ASGIApp, quiet_paths: tuple[str, ...] = (), trusts_sampling: bool = True) -> None:
        """`quiet_paths` are logged at debug, and not traced; `trusts_sampling` is of `traces.request`."""
        self.app = app
        self._quiet_paths = quiet_paths
        self._trusts_sampling = trusts_sampling
        self._active = 0
        metrics.active_requests.read_from(self._read_active)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received = start_from(scope["headers"])
        span = self._begin_span(scope, received) if Tracing.is_on else None
        context = outgoing_raw_headers()
        started = time.perf_counter()
        status, size = CLIENT_CLOSED_REQUEST, 0
        self._active += 1

        async def send_with_context(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *context]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_with_context)
            if rest := _take_rest(scope):
                await rest(receive, send_with_context)
        except Exception:
            if status == CLIENT_CLOSED_REQUEST:  # FastAPI has sent no response: it never saw the request
                await internal_error()(scope, receive, send_with_context)
            status = 500
            raise
        finally:
            self._active -= 1
            seconds = time.perf_counter() - started
            method, route = metrics.method_label(scope["method"]), _template(scope)
            metrics.server_requests.record(seconds, method, route, status)
            self._log_access(scope, route, status, seconds, size)
            if span:
                _end_span(span, scope, method, route, status)

    def _begin_span(self, scope: Scope, received: str) -> Span | None:
        if scope["path"].startswith(self._quiet_paths):
            return None
        return traces.request(received, self._trusts_sampling)

    def _read_active(self) -> Readings:
        return [((), self._active)]

    def _log_access(self, scope: Scope, route: str, status: int, seconds: float, size: int) -> None:
        level = logging.DEBUG if scope["path"].startswith(self._quiet_paths) else logging.INFO
        if access_log.isEnabledFor(level):
            access_log.handle(AccessRecord(level, scope, route, status, seconds, size))


class AsGet:
    """ASGI middleware: responds as to a GET to HEAD, and to the OPTIONS by which a balancer checks.

    uvicorn leaves the body of a HEAD out (RFC 9110, §9.3.2). A response that has no end has to know: it finds
    `is_head` in its scope.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_as_get(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        as_get = {**scope, "method": "GET", "is_head": scope["method"] == "HEAD"}
        try:
            await self._app(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")


def _take_rest(scope: Scope) -> Rest | None:
    """What is still to be sent, for hours perhaps: nothing else is needed of the request any more."""
    rest: Rest | None = scope.get(REST)
    if rest:
        # The connection has the same list.
        scope["headers"].clear()
        logged = {name: scope[name] for name in LOGGED & scope.keys()}
        scope.clear()
        scope.update(logged)
    return rest


def _end_span(span: Span, scope: Scope, method: str, route: str, status: int) -> None:
    """The path is an attribute, its template in the name, and the query in neither: it may say anything."""
    attributes = {
        "http.request.method": method,
        "url.scheme": scope["scheme"],
        "url.path": raw_path(scope)[:MAX_PATH],
        "http.response.status_code": status,
    }
    name = "HTTP" if method == OTHER else method
    if route != OTHER:
        attributes["http.route"] = route
        name = f"{name} {route}"
    span.end(str(status) if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "", name, attributes)


def _template(scope: Scope) -> str:
    """The template of the path, as in the table of routes; one word for all paths that have none."""
    return getattr(scope.get("route"), "path", OTHER)


def _is_as_get(method: str, path: str) -> bool:
    return method == "HEAD" or (method == "OPTIONS" and path in CHECKED_PATHS)
