"""What every service is made of: its life, its errors, its place in the registry."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol

import anyio
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig

from common import __version__
from common.api import problems, swagger
from common.discovery.registration import Registration
from common.server.dependency import Need
from common.server.health import check, health_router, live_router
from common.server.middleware import HeadAsGet, RequestContext
from common.settings import ServiceSettings
from common.tokens import Tokens

logger = logging.getLogger(__name__)

# Threads for the endpoints; PostgreSQL's pool has as many connections.
THREADS = 8

GOODBYE_SECONDS = 0.5

# common/telemetry.py has the trace; FastAPI would look for exporters at every request.
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False}


class Companion(Protocol):
    """What starts and stops with the service."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def create_service(
    name: str,
    description: str,
    settings: ServiceSettings,
    routers: Sequence[APIRouter],
    needs: Sequence[Need] = (),
    companions: Sequence[Companion] = (),
    resources: Sequence[AbstractAsyncContextManager[object]] = (),
    is_registered: bool = True,
    openapi_url: str | None = "/openapi.json",
    health: APIRouter = health_router,
    leave: Callable[[], None] = lambda: None,
) -> FastAPI:
    """A FastAPI app as every service is one; `leave` is called before it stops listening."""
    app = FastAPI(
        title=f"Microblog: {name}",
        description=description,
        version=__version__,
        lifespan=partial(_life, settings, needs, companions, resources, is_registered),
        openapi_url=openapi_url,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.name = name
    app.state.needs = needs
    app.state.registration = None
    app.state.leave = leave
    app.state.tokens = Tokens.of(settings)
    app.openapi = partial(_document, app.openapi)  # type: ignore[method-assign]  # FastAPI's documented way
    app.add_middleware(HeadAsGet)
    app.add_middleware(RequestContext)
    problems.install(app)
    swagger.install(app)
    for need in needs:
        need.install(app)
    for router in (*routers, live_router, health):
        app.include_router(router)
    return app


@asynccontextmanager
async def _life(
    settings: ServiceSettings,
    needs: Sequence[Need],
    companions: Sequence[Companion],
    resources: Sequence[AbstractAsyncContextManager[object]],
    is_registered: bool,
    app: FastAPI,
) -> AsyncIterator[None]:
    if not logging.root.handlers:
        settings.begin_logging()
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    async with AsyncExitStack() as stack:
        for opened in resources:
            await stack.enter_async_context(opened)
        await _open(stack, needs, companions)
        if is_registered and settings.registry_url:
            await stack.enter_async_context(_registered(app, settings))
        yield


def _document(generate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return problems.describe(generate())


async def _open(stack: AsyncExitStack, needs: Sequence[Need], companions: Sequence[Companion]) -> None:
    for need in needs:
        await stack.enter_async_context(_prepared(need))
    # After the stores, so that whoever uses them stops before they close.
    for companion in companions:
        companion.start()
        stack.callback(companion.stop)


@asynccontextmanager
async def _prepared(need: Need) -> AsyncIterator[None]:
    need.open()
    keeper = asyncio.create_task(need.keep_prepared())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        need.store.close()


@asynccontextmanager
async def _registered(app: FastAPI, settings: ServiceSettings) -> AsyncIterator[None]:
    async def is_well() -> bool:
        return (await check(app.state.name, app.state.needs)).status == "ok"

    address = (settings.address, settings.port)
    registration = Registration(
        str(settings.registry_url), settings.registry_token, app.state.name, address, is_well
    )
    app.state.registration = registration
    registration.start()
    try:
        yield
    finally:
        with anyio.move_on_after(GOODBYE_SECONDS):
            await registration.stop()
