"""uvicorn with signals that drain before they end."""

import asyncio
import gc
import resource
import socket
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from common import memory
from common.server.protocol import BoundedProtocol
from common.settings import ServiceSettings

# foreman kills after 5 seconds: in the first one callers learn that this instance drains, then their requests
# end. A slow registry gets no more than this second.
DRAIN_SECONDS = 1
GRACEFUL_TIMEOUT_SECONDS = 3

# Longer than any caller in this suite keeps an idle connection, so that the caller closes it, not the server.
KEEP_ALIVE_SECONDS = 75

# The default of 700 objects is a few requests' worth, most of which are still under way.
GC_THRESHOLD = 5000


class Server(uvicorn.Server):
    """uvicorn, except that on a signal it deregisters before it stops listening.

    By itself uvicorn closes its socket first and ends the lifespan last. In
    between, other services still send requests, which are refused.
    """

    _drain_task: asyncio.Task[None] | None = None

    async def startup(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        _freeze_startup_objects()
        memory.return_unused()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.started:
            self._loop.call_soon_threadsafe(self._begin_drain)
        else:
            self.should_exit = True

    def _begin_drain(self) -> None:
        # Under foreman a Ctrl-C arrives twice, from the terminal and from foreman: the first counts.
        if self._drain_task is None:
            self._drain_task = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        app: Any = self.config.app
        self._close_keep_alive()
        if app.state.registration is not None:
            draining = self._loop.create_task(app.state.registration.drain())
            await asyncio.sleep(DRAIN_SECONDS)
            draining.cancel()
        app.state.on_shutdown()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A duplicate keeps the queue of a shared socket: what is in it when that closes would be reset.
        queues = [shared.dup() for shared in sockets or ()]
        for server in self.servers:
            server.close()
        for queue in queues:
            with queue:
                await self._accept_rest(queue)
        await super().shutdown(sockets)

    async def _accept_rest(self, queue: socket.socket) -> None:
        queue.setblocking(False)
        with suppress(OSError):  # the queue is empty, or no more can be taken
            while True:
                connection, _ = queue.accept()
                await self._loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(self.config, self.server_state, self.lifespan.state)  # type: ignore[call-arg]

    def _close_keep_alive(self) -> None:
        """Make each response the last on its connection: the next request goes to another instance."""
        for headers in (self.config.encoded_headers, self.server_state.default_headers):
            headers.append((b"connection", b"close"))


def serve(app: FastAPI, settings: ServiceSettings, protocol: type[BoundedProtocol] = BoundedProtocol) -> None:
    """Serve until SIGTERM or SIGINT.

    Processes that share a port (SO_REUSEPORT, socket(7)) each get a part of the connections: so one can take
    the other's place before that ends.
    """
    settings.configure_logging(app.state.name)
    allow_connections(protocol.max_connections)
    sockets = [_shared_socket(settings)] if settings.shares_port else None
    Server(uvicorn_config(app, settings, protocol)).run(sockets)


def _shared_socket(settings: ServiceSettings) -> socket.socket:
    # Without a host every address is meant, of either family.
    is_any = not settings.host
    family = socket.AF_INET6 if is_any or ":" in settings.host else socket.AF_INET
    address = (settings.host, settings.port)
    return socket.create_server(address, family=family, reuse_port=True, dualstack_ipv6=is_any)


def _freeze_startup_objects() -> None:
    """Collect garbage less often, and never look again at what starting made: it stays to the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def allow_connections(connections: int) -> None:
    """Every connection is one, and so is the one to an instance behind the gateway."""
    allowed, possible = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 100
    most = wanted if possible == resource.RLIM_INFINITY else min(wanted, possible)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, most), possible))


def uvicorn_config(
    app: FastAPI, settings: ServiceSettings, protocol: type[BoundedProtocol] = BoundedProtocol
) -> uvicorn.Config:
    """How uvicorn is to serve `app`."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=protocol,
        ws="none",
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACEFUL_TIMEOUT_SECONDS,
    )
