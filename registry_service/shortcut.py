"""The three calls of which there are many, without all that FastAPI does for each."""

from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import parse_qsl

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.api.problems import render
from common.api.routing import media_type
from common.discovery.models import Lease
from common.errors import NotFound, Problem
from registry_service.auth import registry_token
from registry_service.models import Heartbeat, NewInstance, Position, ReportedStatus
from registry_service.routes import HEARTBEAT_PATH, REGISTER_PATH, SERVICES_PATH, routes
from registry_service.store import RegistryStore
from registry_service.watchers import SnapshotWatchers

HEARTBEAT_PREFIX = HEARTBEAT_PATH.partition("{")[0]


class Unusual(Exception):
    """A request to which only FastAPI's route knows the response."""


class Shortcut:
    """ASGI middleware: responds as the routes do to what is well-formed. All else goes on to the app."""

    def __init__(self, app: ASGIApp, store: RegistryStore, watchers: SnapshotWatchers) -> None:
        self._app = app
        self._store = store
        self._watchers = watchers
        self._routes = {route.path: route for route in routes.routes}  # type: ignore[attr-defined]
        self._calls: dict[tuple[str, str], Callable[[Request, Message], Awaitable[Response]]] = {
            ("POST", REGISTER_PATH): self._register,
            ("POST", HEARTBEAT_PATH): self._beat,
            ("GET", SERVICES_PATH): self._news,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _template(scope)
        call = self._calls.get((scope["method"], path)) if path else None
        if call is None:
            await self._app(scope, receive, send)
            return
        message = await receive()
        try:
            response = await call(Request(scope), message)
        except (Unusual, ValidationError):
            await self._app(scope, _again(message, receive), send)
            return
        except Problem as problem:
            response = render(problem)
        scope["route"] = self._routes[path]
        await response(scope, receive, send)

    async def _register(self, request: Request, message: Message) -> Response:
        await registry_token(request)
        instance = self._store.register(NewInstance.model_validate_json(_json(request, message)))
        return _response(Lease(instance_id=instance.instance_id).model_dump_json().encode(), 201)

    async def _beat(self, request: Request, message: Message) -> Response:
        await registry_token(request)
        body = _json(request, message)
        status = Heartbeat.model_validate_json(body).status if body else None
        instance_id = request.scope["path"].removeprefix(HEARTBEAT_PREFIX)
        instance = self._store.beat(instance_id, status)
        request.scope["repeat"] = partial(self._beat_again, instance_id, status)
        return _response(instance.model_dump_json().encode())

    def _beat_again(self, instance_id: str, status: ReportedStatus | None) -> bytes | None:
        try:
            return self._store.beat(instance_id, status).model_dump_json().encode()
        except NotFound:
            return None

    async def _news(self, request: Request, message: Message) -> Response:
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        return _response(await self._watchers.news(Position.model_validate(dict(query))))


def _template(scope: Scope) -> str:
    """The path in the table of routes, if it may be one of these calls."""
    path: str = scope["path"] if scope["type"] == "http" else ""
    instance_id = path.removeprefix(HEARTBEAT_PREFIX)
    return HEARTBEAT_PATH if instance_id != path and instance_id and "/" not in instance_id else path


def _json(request: Request, message: Message) -> bytes:
    """The body, which is JSON or nothing."""
    body: bytes = message.get("body", b"")
    if message.get("more_body") or (body and media_type(request) != "application/json"):
        raise Unusual
    return body


def _response(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _again(message: Message, receive: Receive) -> Receive:
    """This message, and then what else comes."""
    received = [message]

    async def next_one() -> Message:
        return received.pop() if received else await receive()

    return next_one
