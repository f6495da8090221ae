"""Routes that check first the token, then the body's type and size, then its content."""

import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

import pydantic_core
from fastapi import APIRouter, Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Param
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from common.api.auth import REFUSALS
from common.api.dependencies import RequestDependencies, calls, without_query
from common.api.problems import malformed, merged, problems
from common.errors import Problem, TooLarge, UnsupportedMediaType
from common.staleness import may_be_stale

MAX_BODY_BYTES = 64 * 1024
MERGE_PATCH = "application/merge-patch+json"  # RFC 7396

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class BoundedRequest(Request):
    """A request that counts its body while reading it, up to a limit, and whose JSON is strict."""

    async def stream(self) -> AsyncGenerator[bytes, None]:
        received = 0
        async for chunk in super().stream():
            received += len(chunk)
            if received > MAX_BODY_BYTES:
                raise body_too_large()
            yield chunk

    async def json(self) -> Any:
        # Unlike the standard parser, this one refuses bad UTF-8, NaN and a thousand nested lists.
        text = await self.body()
        try:
            return pydantic_core.from_json(text, allow_inf_nan=False)
        except ValueError as exc:
            raise json.JSONDecodeError(str(exc), "", 0) from exc


class AuthFirstRoute(APIRoute):
    """A route that verifies the token before it reads the body, and reads JSON only.

    It documents what it refuses before it calls the endpoint. Its title on the Swagger page is the first
    line of the endpoint's docstring.
    """

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *, summary: str | None = None, **options: Any
    ) -> None:
        first_line = (endpoint.__doc__ or "").partition("\n")[0].rstrip(".")
        if not iscoroutinefunction(endpoint):
            endpoint = _run_in_thread(endpoint)
        super().__init__(path, endpoint, summary=summary or first_line or None, **options)
        self.responses = merged(problems(*self._refusals()), self.responses)

    def _refusals(self) -> Iterator[Problem]:
        depends_on = set(calls(self.dependant))
        yield from (refusal() for call, refusal in REFUSALS.items() if call in depends_on)
        if self.body_field:
            yield from (body_too_large(), json_only())
        if errors := next(filter(None, self._validation_errors()), None):
            yield malformed(errors[:1])

    def _validation_errors(self) -> Iterator[list[dict[str, Any]]]:
        """What validation finds in an unknown field of the body, and in `?` for each parameter."""
        if self.body_field:
            yield self.body_field.validate({"unknown": "?"}, loc=("body",))[1]
        for parameter in get_flat_params(self.dependant):
            info = parameter.field_info
            # The fields of a model do not say where they are: in the query.
            where = info.in_.value if isinstance(info, Param) else "query"
            yield parameter.validate("?", loc=(where, parameter.alias))[1]

    def get_route_handler(self) -> Handler:
        documented = self.dependant
        handle, handle_plain = self._handler(documented), self._handler(without_query(documented))
        self.dependant = documented

        async def bound_and_handle(request: Request) -> Response:
            request = BoundedRequest(request.scope, request.receive)
            return await (handle if request.scope["query_string"] else handle_plain)(request)

        return bound_and_handle

    def _handler(self, dependant: Dependant) -> Handler:
        dependencies = RequestDependencies(dependant)
        self.dependant = dependencies.rest
        handle = super().get_route_handler()
        reads_json = self.body_field is not None

        async def check_and_handle(request: Request) -> Response:
            await dependencies.resolve(request)
            if reads_json and await request.body():
                _require_json(request)
            return await handle(request)

        return check_and_handle


def _run_in_thread(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """One thread hop instead of FastAPI's two: the call, and the validation of its result."""

    @wraps(endpoint)
    async def call(**values: Any) -> Any:
        return await run_in_threadpool(endpoint, **values)

    return call


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _require_json(request: Request) -> None:
    if media_type(request) not in ("application/json", MERGE_PATCH if request.method == "PATCH" else None):
        raise json_only()


def body_too_large() -> TooLarge:
    return TooLarge("body_too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")


def json_only() -> UnsupportedMediaType:
    return UnsupportedMediaType("json_only", "Send JSON, with Content-Type: application/json.")


def from_state(name: str) -> Any:
    """A parameter of routes: what the app keeps under this name, such as its store."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(get)


async def _tolerate_staleness(request: Request) -> None:
    may_be_stale.set("authorization" not in request.headers)


# Of a route by which a client without a token reads what may be a moment old. With a token, it may have
# written that just now.
MAY_BE_STALE = Depends(_tolerate_staleness)


def router(tag: str, *possible: Problem) -> APIRouter:
    """A router of such routes, with the errors that each of them may raise, if it does not say otherwise."""
    return APIRouter(route_class=AuthFirstRoute, tags=[tag], responses=problems(*possible))
