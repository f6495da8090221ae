"""Middleware of a service that faces the internet: the path above it, trusted proxies, CORS."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from common.api.problems import render
from common.errors import BadRequest
from common.gateway.settings import EdgeSettings, split_list

REQUEST_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-ID",
    "traceparent",
]
RESPONSE_HEADERS = [
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-ID",
    "traceparent",
]
# Headers whose value is, or contains, a reference to another path.
REFERRING_HEADERS = {b"location", b"content-location", b"link"}


class _Cors(CORSMiddleware):
    """Starlette's, with refusals in the form of all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        reason = bytes(response.body).decode()
        return render(BadRequest("cors_refused", f"{reason}.", {"Vary": "Origin"}))


def edge_middleware(settings: EdgeSettings) -> Iterator[Middleware]:
    """The middleware that these settings ask for, outermost first."""
    if settings.root_path:
        yield Middleware(BelowRootPath, root_path=settings.root_path)
    if settings.trusted_proxies:
        yield Middleware(TrustedProxyMiddleware, trusted_hosts=split_list(settings.trusted_proxies))
    if settings.cors_origins:
        yield Middleware(
            _Cors,
            allow_origins=split_list(settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
        )


class BelowRootPath:
    """ASGI middleware: the app is below a path of the proxy in front, and knows nothing of it.

    The proxy may strip the path or leave it: it is stripped here if it is
    there. References in the response's headers get it back.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._prefix = root_path.encode()
        # A path reference, in angle brackets or alone; `//` would begin a host.
        self._reference = re.compile(rb"(^|<)(?=/(?!/))")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_root_path(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [self._completed(*header) for header in message.get("headers", ())]
            await send(message)

        if scope["type"] == "http":
            self._strip(scope)
        await self._app(scope, receive, send_with_root_path)

    def _strip(self, scope: Scope) -> None:
        path: bytes = scope["raw_path"]
        if path == self._prefix or path.startswith(self._prefix + b"/"):
            scope["raw_path"] = path[len(self._prefix) :] or b"/"
            scope["path"] = scope["path"][len(self._prefix) :] or "/"

    def _completed(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name.lower() in REFERRING_HEADERS:
            value = self._reference.sub(rb"\1" + self._prefix, value)
        return name, value


class TrustedProxyMiddleware(ProxyHeadersMiddleware):
    """uvicorn's middleware for `X-Forwarded-For` and `-Proto`, and the same for `X-Forwarded-Host`.

    Several proxies in a row may be trusted: the client is the last address in
    the list that is not.
    """

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["client"] and scope["client"][0] in self.trusted_hosts:
            hosts = [value for name, value in scope["headers"] if name == b"x-forwarded-host"]
            if hosts:
                scope["headers"] = [
                    (name, hosts[-1] if name == b"host" else value) for name, value in scope["headers"]
                ]
        await super().__call__(scope, receive, send)
