"""A store that a service depends on: prepared, pinged, 503 while it is unavailable."""

import asyncio
import logging
import random
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Protocol

import anyio
from fastapi import FastAPI, Request, Response

from common.api.problems import render
from common.errors import Unavailable

logger = logging.getLogger(__name__)


PING_SECONDS = 1.0
PREPARE_AGAIN_SECONDS = (0.2, 2.0)


class Store(Protocol):
    """The shape that every store has, as far as a service's life goes."""

    @property
    def outages(self) -> tuple[type[Exception], ...]: ...
    def prepare(self) -> None: ...
    def ping(self) -> None: ...
    def close(self) -> None: ...


class Need:
    """A store, whether the service can go on without it, and how it is."""

    def __init__(self, name: str, store: Store, is_vital: bool = True) -> None:
        self.name = name
        self.store = store
        self.is_vital = is_vital
        self.is_prepared = False
        self._doubt = asyncio.Event()
        self._ping: Future[None] | None = None

    def open(self) -> None:
        """Make anew what belongs to an event loop: a test's app may live in several, one after the other."""
        self._doubt = asyncio.Event()

    async def keep_prepared(self) -> None:
        """Prepare until it works, and again after every outage: what comes back may be empty."""
        while True:
            self._doubt.clear()
            try:
                await asyncio.wrap_future(_in_background(self.store.prepare))
            except self.store.outages as exc:
                logger.warning("waiting for %s: %s", self.name, exc)
            except Exception:  # a missing privilege, say, until an operator has granted it
                logger.exception("%s cannot be prepared", self.name)
            else:
                self.is_prepared = True
                await self._doubt.wait()
            await asyncio.sleep(random.uniform(*PREPARE_AGAIN_SECONDS))

    async def is_well(self) -> bool:
        try:
            with anyio.fail_after(PING_SECONDS):
                await asyncio.wrap_future(self._pinged())
        except Exception as exc:  # a ping that fails has failed, whatever the reason
            logger.debug("%s does not answer: %r", self.name, exc)
            if isinstance(exc, self.store.outages):
                self._doubt.set()
            return False
        return self.is_prepared

    def _pinged(self) -> Future[None]:
        # However many ask, and however long it hangs: one ping at a time.
        if self._ping is None or self._ping.done():
            self._ping = _in_background(self.store.ping)
        return self._ping

    def install(self, app: FastAPI) -> None:
        """Let `app` answer 503 to what the store's driver raises when the store is away."""
        for outage in self.store.outages:
            app.add_exception_handler(outage, self._answer_outage)

    async def _answer_outage(self, request: Request, exc: Exception) -> Response:
        logger.warning("%s is away: %s", self.name, exc)
        self._doubt.set()
        return render(Unavailable(f"{self.name}_unavailable", f"{self.name} is away; try again soon."))


def _in_background(work: Callable[[], None]) -> Future[None]:
    """Call it in a thread that, unlike anyio's and an executor's, keeps no process from ending."""
    outcome: Future[None] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            work()
        except Exception as exc:  # it belongs to who waits
            outcome.set_exception(exc)
        else:
            outcome.set_result(None)

    Thread(target=run, name="store", daemon=True).start()
    return outcome
