"""GET /status, and the stylesheet and the script of its page. Only memory is read: a look is always quick."""

import re
from functools import cache
from importlib import resources
from typing import Annotated

from fastapi import Request, Response

from common.api.routing import from_state, router
from common.discovery.directory import Directory
from common.errors import Unauthorized
from common.gateway.status import page
from common.gateway.status.report import report
from common.gateway.status.scraper import Scraper
from common.operators import is_operator, operators_only

# A media type, and its weight if it has one.
ACCEPTED = re.compile(r"([\w*+.-]+/[\w*+.-]+)(?:[^,]*?;\s*q=([01](?:\.\d+)?))?")

PATHS = {"status", "status.css", "status.js"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

status_routes = router("status")


def sign_in() -> Unauthorized:
    """A browser asks for the token then: any user, and the token as the password."""
    refusal = operators_only()
    return Unauthorized(refusal.code, refusal.detail, 'Basic realm="status", charset="UTF-8"')


@status_routes.get("/status", include_in_schema=False)
async def status(
    request: Request,
    directory: Annotated[Directory, from_state("directory")],
    scraper: Annotated[Scraper, from_state("scraper")],
) -> Response:
    """How every process, store and tube is: HTML, or JSON for a client that accepts that rather."""
    _require_operator(request)
    scraper.look()
    found = report(scraper.histories, scraper.services, directory.is_current)
    if _prefers_json(request.headers.get("accept", "")):
        return Response(found.model_dump_json(), headers=HEADERS, media_type="application/json")
    return Response(page.render(found), headers=HEADERS, media_type="text/html")


@status_routes.get("/status.css", include_in_schema=False)
async def stylesheet() -> Response:
    return _asset("status.css", "text/css")


@status_routes.get("/status.js", include_in_schema=False)
async def script() -> Response:
    return _asset("status.js", "text/javascript")


def _asset(name: str, media_type: str) -> Response:
    headers = {"Cache-Control": "max-age=60", "X-Content-Type-Options": "nosniff"}
    return Response(_content(name), headers=headers, media_type=media_type)


@cache
def _content(name: str) -> bytes:
    return (resources.files(__package__ or "") / name).read_bytes()


def _require_operator(request: Request) -> None:
    peer = request.client.host if request.client else None
    token: str = request.app.state.status_token
    if not is_operator(peer, request.scope["headers"], token):
        raise sign_in() if token else operators_only()


def _prefers_json(accept: str) -> bool:
    """By the weights of the two (RFC 9110, §12.5.1); HTML if they are equal."""
    weights = {media_type: float(weight or 1) for media_type, weight in ACCEPTED.findall(accept.lower())}
    return weights.get("application/json", 0) > weights.get("text/html", 0)
