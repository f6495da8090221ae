"""What a service that faces the internet needs besides: who may call it, from where, how often."""

import re
from http import HTTPStatus
from ipaddress import ip_network
from typing import Annotated

from fastapi import FastAPI
from pydantic import AfterValidator
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from throttled.rate_limiter.quota_parser import parse

from common.errors import BadRequest
from common.limits import Policy
from common.proxies import TrustedProxies
from common.rendering import render
from common.settings import ServiceSettings, url

OFF = "off"
QUOTA = re.compile(r"[1-9]\d*/(s|min|hour|day)( burst [1-9]\d*)?")
ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?")
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


def _quota(value: str) -> str:
    if value != OFF and not QUOTA.fullmatch(value):
        raise ValueError("say `off`, or a rate and a burst such as `100/s burst 500`")
    return value


def _networks(value: str) -> str:
    try:
        for network in _listed(value):
            ip_network(network)
    except ValueError as exc:
        raise ValueError("say addresses and networks, such as `10.0.0.0/8, 192.0.2.1`") from exc
    return value


def _origins(value: str) -> str:
    for origin in _listed(value):
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError("an origin is a scheme and a host, such as `https://example.com`, or `*`")
    return value


class EdgeSettings(ServiceSettings):
    """Settings of a service that faces the internet. Lists are separated by commas."""

    rate_limit: Annotated[str, AfterValidator(_quota)] = "200/s burst 1000"
    rate_limit_storage: Annotated[str, url("redis", "rediss")] = ""
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    cors_origins: Annotated[str, AfterValidator(_origins)] = ""

    @property
    def ordinary(self) -> Policy | None:
        """What one client may ask for; None for no limits at all."""
        return None if self.rate_limit == OFF else Policy("ordinary", parse(self.rate_limit)[0])


class _Cors(CORSMiddleware):
    """Starlette's, with refusals in the form of all others."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code == HTTPStatus.OK:
            return answer
        reason = bytes(answer.body).decode()
        return render(BadRequest("cors_refused", f"{reason}.", {"Vary": "Origin"}))


def install(app: FastAPI, settings: EdgeSettings) -> None:
    """Add the middleware that these settings ask for, outermost first."""
    if settings.trusted_proxies:
        trusted = _listed(settings.trusted_proxies)
        add_middleware(app, Middleware(TrustedProxies, trusted_hosts=trusted))
    if settings.cors_origins:
        add_middleware(
            app,
            Middleware(
                _Cors,
                allow_origins=_listed(settings.cors_origins),
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=REQUEST_HEADERS,
                expose_headers=RESPONSE_HEADERS,
            ),
        )


def add_middleware(app: FastAPI, middleware: Middleware) -> None:
    """Inside all that `app` has, but outside of what makes HEAD a GET: what is passed on stays as it is."""
    app.user_middleware.insert(-1, middleware)


def _listed(value: str) -> list[str]:
    return [one.strip() for one in value.split(",") if one.strip()]
