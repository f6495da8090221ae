"""Scrapes every process while an operator looks at the status page, and keeps the last minute in memory."""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

import httpx

from common.discovery.directory import Directory
from common.discovery.models import Instance, Status
from common.gateway.fetch import UnexpectedStatus, fetch
from common.gateway.status.history import MINUTE_SECONDS, SCRAPE_SECONDS, History, Target
from common.gateway.status.reading import read
from common.gateway.transport import Transport
from common.settings import is_loopback, netloc

logger = logging.getLogger(__name__)

# After the last look at the page.
LOOK_SECONDS = 60.0
TIMEOUT_SECONDS = 1.0
MAX_CONCURRENT_SCRAPES = 8
MAX_BYTES = 4 * 1024 * 1024
# Of processes: further ones are neither scraped nor shown.
MAX_TARGETS = 256

FAILURES: dict[int, str] = {
    HTTPStatus.FORBIDDEN: "it needs the same STATUS_TOKEN",
    HTTPStatus.NOT_FOUND: "METRICS is off",
}


class Scraper:
    """Begins to scrape at a look at the page, and forgets all a minute after the last one.

    `services` are those that are no workers; `token` opens what is measured on other machines.
    """

    def __init__(
        self,
        directory: Directory,
        transport: Transport,
        token: str,
        registries: Iterable[str],
        services: Sequence[str],
    ) -> None:
        self._directory = directory
        self._transport = transport
        self._token = token
        urls = map(urlsplit, registries)
        self._registries = [(url.hostname or "", url.port or 80) for url in urls if url.scheme == "http"]
        self.services = services
        self._histories: dict[tuple[str, str], History] = {}
        self._task: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_scraping(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def histories(self) -> list[History]:
        """Of each process that is there, and of each that was there in the last minute."""
        return list(self._histories.values())

    def look(self) -> None:
        """Scrape from now on; waits for nothing."""
        self._looked_at = time.monotonic()
        self._list_targets(self._looked_at)
        if not self.is_scraping:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while time.monotonic() < self._looked_at + LOOK_SECONDS:
                began = time.monotonic()
                await self._scrape_all()
                await asyncio.sleep(began + SCRAPE_SECONDS - time.monotonic())
                self._list_targets(time.monotonic())
        finally:
            self._histories = {}

    def _list_targets(self, now: float) -> None:
        listed = {target.key: target for target in list(self._targets())[:MAX_TARGETS]}
        for key, target in listed.items():
            history = self._histories.setdefault(key, History(target, now))
            history.target, history.listed_at, history.is_gone = target, now, False
        gone = [key for key in self._histories if key not in listed]
        for number, key in enumerate(gone, start=len(listed) + 1):
            self._histories[key].is_gone = True
            if number > MAX_TARGETS or self._histories[key].listed_at < now - MINUTE_SECONDS:
                del self._histories[key]

    def _targets(self) -> Iterator[Target]:
        status = Status.UP if self._directory.is_current else Status.SUSPECT
        for host, port in self._registries:
            yield Target("registry", netloc(host, port), host, status)
        for name, instances in self._directory.services().items():
            yield from (self._target(name, instance) for instance in instances)

    def _target(self, name: str, instance: Instance) -> Target:
        is_worker = name not in self.services
        version = instance.version or ""
        return Target(name, instance.netloc, instance.host, instance.status, version, is_worker)

    async def _scrape_all(self) -> None:
        slots = asyncio.Semaphore(MAX_CONCURRENT_SCRAPES)
        await asyncio.gather(*(self._scrape(one, slots) for one in self.histories if not one.is_gone))

    async def _scrape(self, history: History, slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    text = await self._fetch(history.target)
                # In a thread: the largest take as long as several requests.
                reading = await asyncio.to_thread(read, text.decode())
                history.record(time.monotonic(), reading)
            except UnexpectedStatus as exc:
                history.fail(FAILURES.get(exc.status, f"it answers {exc.status}"), is_silent=False)
            except (httpx.HTTPError, TimeoutError):
                history.fail("it does not answer", is_silent=True)
            except Exception as exc:  # whatever one process says, the others are shown
                logger.debug("%s cannot be read: %r", history.target, exc)
                history.fail("what it measures cannot be read", is_silent=True)

    async def _fetch(self, target: Target) -> bytes:
        is_here = is_loopback(target.host)  # which needs no token
        headers = {"Authorization": f"Bearer {self._token}"} if self._token and not is_here else {}
        return await fetch(self._transport, target.netloc, "/metrics", MAX_BYTES, headers)
