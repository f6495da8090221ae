"""A worker that answers on a port and is in the registry, beside its work, in a thread of its own."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from common import memory
from common.discovery.registration import Registrations
from common.jobs.conditions import Kinds, conditions
from common.settings import ServiceSettings
from common.telemetry import metrics
from common.worker.health import WorkerHealth
from common.worker.listener import Listener

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
# What listening and registering have loaded, and need no more, takes some megabytes.
SETTLE_SECONDS = 15.0
# The registry is told, or learns it when the lease runs out.
END_SECONDS = 2.0


@contextmanager
def present(name: str, settings: ServiceSettings, needs: Kinds, stop: Event) -> Iterator[None]:
    """Listen and be registered under this name; report `draining` as soon as `stop` is set.

    `needs` are the outages of what the worker needs, by name, the queue first. A port that is
    taken costs the worker its place in the registry, never its work.
    """
    metrics.configure(settings.metrics)
    with settings.tracing(name), _listening(name, settings, needs, stop):
        yield


@contextmanager
def _listening(name: str, settings: ServiceSettings, needs: Kinds, stop: Event) -> Iterator[None]:
    health = WorkerHealth(name, needs, conditions, settings.status_token)
    done = Event()
    life = Thread(
        target=lambda: asyncio.run(_live(name, settings, health, stop, done)), name="presence", daemon=True
    )
    life.start()
    try:
        yield
    finally:
        stop.set()
        done.set()
        life.join(END_SECONDS)


async def _live(name: str, settings: ServiceSettings, health: WorkerHealth, stop: Event, done: Event) -> None:
    async def is_healthy() -> bool:
        return health.is_healthy

    try:
        server = await Listener(health.respond).listen(settings.host, settings.port)
    except OSError as exc:
        logger.warning("not registered, nothing listens: %s; give each worker a PORT of its own", exc)
        return
    address = (settings.address, settings.port)
    registrations = Registrations(settings.registry_url, settings.registry_token, name, address, is_healthy)
    asyncio.get_running_loop().call_later(SETTLE_SECONDS, memory.return_unused)
    async with server, registrations:
        await _until(stop)
        await registrations.drain()
        await _until(done)


async def _until(event: Event) -> None:
    while not event.is_set():
        await asyncio.sleep(POLL_SECONDS)
