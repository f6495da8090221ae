"""What every service is made of: its life, its errors, its place in the registry."""

import asyncio
import gc
import logging
import resource
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from types import FrameType
from typing import Any, Protocol

import anyio
import uvicorn
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from fastapi.telemetry import TelemetryConfig

from common import __version__, docs, errors, rendering
from common.auth import Tokens
from common.health import Need, check, health_router, live_router
from common.protocol import CONNECTIONS, BoundedProtocol
from common.registry import Registration
from common.routing import HeadAsGet
from common.settings import ServiceSettings
from common.telemetry import RequestContext

logger = logging.getLogger(__name__)

# Threads for the endpoints; PostgreSQL's pool has as many connections.
THREADS = 8

# foreman kills after 5 seconds: in the first one callers learn of it, then their requests end. However
# slow the registry is, it gets no more of them.
DRAIN_SECONDS = 1
FINISH_SECONDS = 3
GOODBYE_SECONDS = 0.5
# Longer than any caller of ours keeps an idle connection, so that the caller is the one who closes it.
KEEP_ALIVE_SECONDS = 75

# The default of 700 objects is a few requests' worth, most of which are still under way.
COLLECTION_THRESHOLD = 5000

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
    rendering.install(app)
    docs.install(app)
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
    return errors.describe(generate())


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


class Server(uvicorn.Server):
    """uvicorn, except that on a signal it says goodbye before it stops listening.

    By itself it closes its socket first and ends the lifespan last, which
    leaves callers a while in which they are refused.
    """

    _leaving: asyncio.Task[None] | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        _spare_what_stays()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.started:
            self._loop.call_soon_threadsafe(self._leave)
        else:
            self.should_exit = True

    def _leave(self) -> None:
        # Under foreman a Ctrl-C arrives twice, from the terminal and from foreman: the first counts.
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        app: Any = self.config.app
        self._part()
        if app.state.registration is not None:
            telling = self._loop.create_task(app.state.registration.drain())
            await asyncio.sleep(DRAIN_SECONDS)
            telling.cancel()
        app.state.leave()
        self.should_exit = True

    def _part(self) -> None:
        """From now on each answer is the last one of its connection: the next request goes elsewhere."""
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append((b"connection", b"close"))


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings.begin_logging()
    _allow_many_files()
    Server(listening(app, settings)).run()


def _spare_what_stays() -> None:
    """Collect garbage less often, and never look again at what starting made: it stays to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTION_THRESHOLD)


def _allow_many_files() -> None:
    """Every connection is one, and so is the one to an instance behind the gateway."""
    allowed, possible = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS + 100
    most = wanted if possible == resource.RLIM_INFINITY else min(wanted, possible)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, most), possible))


def listening(app: FastAPI, settings: ServiceSettings) -> uvicorn.Config:
    """How uvicorn is to serve `app`."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ws="none",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
