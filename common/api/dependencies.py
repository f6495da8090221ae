"""What an endpoint takes from the request, without FastAPI where that takes longer than the work.

Dependencies that need nothing but the request are called directly, before the
body is read: FastAPI takes some 30 µs for each. It takes as long for each
parameter of the query, also where the request has no query.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant

Resolve = Callable[[Request], Awaitable[Any]]

# What a dependency may ask for beside the request and other dependencies.
OTHER_NEEDS = (
    "path_params", "query_params", "header_params", "cookie_params", "body_params", "response_param_name",
    "websocket_param_name", "http_connection_param_name", "background_tasks_param_name",
    "security_scopes_param_name", "concurrency",
)  # fmt: skip
# No parameter of an endpoint can have this name.
REQUEST = "microblog.request"
VALUES = "microblog.values"


class RequestDependencies:
    """Those of an endpoint, and the endpoint as FastAPI has to call it without them."""

    def __init__(self, endpoint: Dependant) -> None:
        resolvers = [(one, _resolver(one)) for one in endpoint.dependencies]
        self._resolvers = [(one.name, resolve) for one, resolve in resolvers if resolve]
        self.rest = replace(
            endpoint,
            call=_with_values(endpoint),
            dependencies=[one for one, resolve in resolvers if not resolve],
            request_param_name=REQUEST,
        )

    async def resolve(self, request: Request) -> None:
        """Keep their values for the endpoint. Raises what they raise."""
        values = {name: await resolve(request) for name, resolve in self._resolvers}
        values.pop(None, None)
        request.scope[VALUES] = values


def calls(dependant: Dependant) -> Iterator[object]:
    """The endpoint, and all that it depends on."""
    yield dependant.call
    for dependency in dependant.dependencies:
        yield from calls(dependency)


def without_query(dependant: Dependant) -> Dependant:
    """What a request without a query has to be asked for: parameters that it lacks have Python's defaults."""
    return replace(
        dependant,
        query_params=[one for one in dependant.query_params if one.field_info.is_required()],
        dependencies=[without_query(one) for one in dependant.dependencies],
    )


def _resolver(dependency: Dependant) -> Resolve | None:
    """How to get its value from the request; None where that takes more."""
    call: Any = dependency.call
    inner = {str(one.name): _resolver(one) for one in dependency.dependencies}
    resolvers = {name: resolve for name, resolve in inner.items() if resolve}
    has_other_needs = any(getattr(dependency, need) for need in OTHER_NEEDS)
    if has_other_needs or len(resolvers) < len(inner) or not _is_async(call):
        return None
    request_name = dependency.request_param_name

    async def resolve(request: Request) -> Any:
        values = {name: await resolve(request) for name, resolve in resolvers.items()}
        if request_name:
            values[request_name] = request
        return await call(**values)

    return resolve


def _is_async(call: Any) -> bool:
    return iscoroutinefunction(call) or iscoroutinefunction(call.__call__)


def _with_values(endpoint: Dependant) -> Callable[..., Awaitable[Any]]:
    call: Any = endpoint.call
    request_name = endpoint.request_param_name

    @wraps(call)
    async def call_with_values(**values: Any) -> Any:
        request: Request = values.pop(REQUEST)
        resolved: Mapping[str, Any] = request.scope[VALUES]
        if request_name:
            values[request_name] = request
        return await call(**values, **resolved)

    return call_with_values
