"""What watchers ask for all the time, without all that FastAPI does for each request."""

from urllib.parse import parse_qsl

from fastapi import Response
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from common.api.problems import render
from common.errors import Problem
from registry_service.models import Position
from registry_service.routes import SERVICES_PATH, routes
from registry_service.watchers import News, SnapshotWatchers


class Shortcut:
    """ASGI middleware: responds as the route does to what is well-formed. All else goes on to the app."""

    def __init__(self, app: ASGIApp, watchers: SnapshotWatchers) -> None:
        self._app = app
        self._watchers = watchers
        [self._route] = [one for one in routes.routes if getattr(one, "path", None) == SERVICES_PATH]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        position = _position(scope["query_string"]) if _is_of_watcher(scope) else None
        if position is None:
            await self._app(scope, receive, send)
            return
        scope["repeat"] = self._repeat
        try:
            response = Response(await self._watchers.news(position), media_type="application/json")
        except Problem as problem:
            response = render(problem)
        scope["route"] = self._route
        await response(scope, receive, send)

    def _repeat(self, query: bytes) -> bytes | News | None:
        position = _position(query)
        return self._watchers.subscribe(position) if position else None


def _is_of_watcher(scope: Scope) -> bool:
    return scope["type"] == "http" and (scope["method"], scope["path"]) == ("GET", SERVICES_PATH)


def _position(query: bytes) -> Position | None:
    """What the query says; None where only FastAPI knows how to refuse it."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    try:
        return Position.model_validate(dict(pairs))
    except ValidationError:
        return None
