"""What every service is made of: its lifespan, its errors, its place in the registry."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from common.api import openapi, problems, swagger
from common.discovery.registration import Registrations
from common.revocations import Revocations
from common.server.dependency import Dependency
from common.server.health import check, health_router, live_router
from common.server.metrics import metrics_router
from common.server.middleware import AsGet, RequestContext
from common.server.runtime import Runtime
from common.settings import THREADS, ServiceSettings
from common.telemetry import metrics
from common.tokens import Tokens
from common.version import VERSION

# common/telemetry/ has the trace, also of what FastAPI never sees: docs/decisions/0030-traces.md.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


class _App(FastAPI):
    """FastAPI with middleware outside of its own: a request that ends there enters nothing else."""

    def __init__(self, middleware: Sequence[Middleware], **options: Any) -> None:
        super().__init__(**options)
        self._middleware = middleware

    def build_middleware_stack(self) -> ASGIApp:
        app = super().build_middleware_stack()
        for middleware, arguments, options in reversed(self._middleware):
            app = middleware(app, *arguments, **options)
        return app


Resource = AbstractContextManager[object] | AbstractAsyncContextManager[object]


def create_service(
    name: str,
    description: str,
    settings: ServiceSettings,
    routers: Sequence[APIRouter],
    dependencies: Sequence[Dependency] = (),
    resources: Sequence[Resource] = (),
    on_shutdown: Callable[[], None] = lambda: None,
    middleware: Sequence[Middleware] = (),
    health: APIRouter = health_router,
    revocations: Revocations | None = None,
    openapi_url: str | None = "/openapi.json",
    root_path: str = "",
) -> FastAPI:
    """A FastAPI app as every service is one.

    Its lifespan opens the dependencies, then the resources, then registers,
    and ends all that in reverse. `on_shutdown` is called before it stops listening.
    `middleware` comes first, the outermost at the front. `revocations` are tokens that it refuses.
    `root_path` is what a proxy has put in front of the app's paths.
    """
    app = _App(
        [
            Middleware(
                RequestContext,
                quiet_paths=settings.QUIET_PATHS,
                trusts_sampling=settings.TRUSTS_SAMPLING,
            ),
            *middleware,
        ],
        title=f"Microblog: {name}",
        description=description,
        version=VERSION,
        lifespan=partial(_lifespan, settings, dependencies, resources),
        # Not by include_router: at each request FastAPI searches an included router twice.
        routes=[
            route for router in (*routers, live_router, health, metrics_router) for route in router.routes
        ],
        openapi_url=openapi_url,
        servers=[{"url": root_path}] if root_path else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.name = name
    app.state.dependencies = dependencies
    app.state.registration = None
    app.state.status_token = settings.status_token
    app.state.on_shutdown = on_shutdown
    app.state.tokens = Tokens.from_settings(settings, revocations)
    app.openapi = partial(_document, app.openapi)  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_middleware(AsGet)
    problems.install(app)
    swagger.install(app, root_path)
    for dependency in dependencies:
        dependency.install(app)
    return app


def _document(generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return openapi.complete(generate())


@asynccontextmanager
async def _lifespan(
    settings: ServiceSettings,
    dependencies: Sequence[Dependency],
    resources: Sequence[Resource],
    app: FastAPI,
) -> AsyncIterator[None]:
    if not logging.root.handlers:
        settings.configure_logging(app.state.name)
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    metrics.configure(settings.metrics)
    async with AsyncExitStack() as stack:
        for resource in (settings.tracing(app.state.name), Runtime(), *dependencies, *resources):
            if isinstance(resource, AbstractAsyncContextManager):
                await stack.enter_async_context(resource)
            else:
                stack.enter_context(resource)
        if settings.registry_url:
            await stack.enter_async_context(_registration(app, settings.registry_url, settings))
        yield


def _registration(app: FastAPI, registry_url: str, settings: ServiceSettings) -> Registrations:
    async def is_healthy() -> bool:
        return (await check(app.state.name, app.state.dependencies)).status == "ok"

    app.state.registration = Registrations(
        registry_url,
        settings.registry_token,
        app.state.name,
        (settings.address, settings.port),
        is_healthy,
        settings.shares_port,
    )
    registration: Registrations = app.state.registration
    return registration
