"""Middleware of a service that faces the internet: CORS, trusted proxies."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from common.api.problems import render
from common.errors import BadRequest
from common.gateway.settings import EdgeSettings, split_list

REQUEST_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
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
    if settings.trusted_proxies:
        yield Middleware(TrustedProxyMiddleware, trusted_hosts=split_list(settings.trusted_proxies))
    if settings.cors_origins:
        yield Middleware(
            _Cors,
            allow_origins=split_list(settings.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=REQUEST_HEADERS,
            expose_headers=RESPONSE_HEADERS,
        )


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
