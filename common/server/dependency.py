"""A store that a service depends on: prepared, pinged, 503 while it is unavailable."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Protocol, Self, TypeVar

import anyio
from fastapi import FastAPI, Request, Response

from common.api.problems import render
from common.errors import (
    CannotServe,
    CredentialsRejected,
    Unavailable,
    outage_reason,
    store_unavailable,
)
from common.telemetry import metrics
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

PING_SECONDS = 1.0
PREPARE_AGAIN_SECONDS = (0.2, 2.0)
# A store that hangs delays the start of its service by so much.
FIRST_PREPARE_SECONDS = 2.0
# What a request was refused for counts for so long, since a ping may not meet it: a full disk, for example.
REFUSAL_SECONDS = 1.0

Result = TypeVar("Result")


class Store(Protocol):
    """The shape that every store has, as far as a service's lifespan goes."""

    @property
    def outages(self) -> tuple[type[Exception], ...]: ...
    def ping(self) -> str | None:
        """Raise unless it can serve. Returns a warning of what an operator should see to, if any."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Condition:
    """Why a store cannot serve, if it cannot; and what an operator should see to though it can."""

    reason: str | None = None
    warning: str | None = None

    @property
    def is_healthy(self) -> bool:
        return self.reason is None


class Dependency:
    """A store, whether the service can go on without it, and whether it is healthy.

    `prepare` creates what the store needs to be useful: a schema, a table. It
    runs until it succeeds, and again after every outage.
    """

    def __init__(
        self, name: str, store: Store, prepare: Callable[[], None] | None = None, is_required: bool = True
    ) -> None:
        self.name = name
        self.is_required = is_required
        self._store = store
        self._prepare = prepare
        self._is_prepared = prepare is None
        self._recheck = asyncio.Event()
        self._ping: Future[str | None] | None = None
        self._warn_of_settings = RepeatedWarning(logger)
        self._refused_at, self._refusal = -math.inf, ""
        self._last_warning: str | None = None

    async def __aenter__(self) -> Self:
        """Try to prepare it once, for a moment, before the service listens.

        A service that is back soon is asked as soon as it listens: its callers know the address.
        """
        # They belong to an event loop, and a test's app may live in several, one after the other.
        self._recheck, self._was_tried = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._keep_ready())
        if self._prepare:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._was_tried.wait(), FIRST_PREPARE_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._store.close()

    async def _keep_ready(self) -> None:
        """Prepare until it works, and again after every outage: what comes back may be empty."""
        while self._prepare:
            self._recheck.clear()
            was_prepared = await self._prepare_once(self._prepare)
            self._is_prepared |= was_prepared
            self._was_tried.set()
            if was_prepared:
                await self._recheck.wait()
            await asyncio.sleep(random.uniform(*PREPARE_AGAIN_SECONDS))

    async def _prepare_once(self, prepare: Callable[[], None]) -> bool:
        try:
            await asyncio.wrap_future(_in_daemon_thread(prepare))
        except self._store.outages as exc:
            self._report(exc)
            return False
        except Exception:  # a missing privilege, say, until an operator has granted it
            logger.exception("%s cannot be prepared", self.name)
            return False
        return True

    async def condition(self) -> Condition:
        found = await self._check()
        metrics.dependency_up.set(found.is_healthy, self.name)
        return found

    async def _check(self) -> Condition:
        try:
            with anyio.fail_after(PING_SECONDS):
                warning = await asyncio.wrap_future(self._ping_once())
        except Exception as exc:  # a ping that fails has failed, whatever the reason
            logger.debug("%s does not answer: %r", self.name, exc)
            if isinstance(exc, CredentialsRejected):
                self._report(exc)
            if isinstance(exc, self._store.outages):
                self._recheck.set()
            return Condition(outage_reason(exc))
        if warning and warning != self._last_warning:
            logger.warning("%s: %s", self.name, warning)
        self._last_warning = warning
        if time.monotonic() < self._refused_at + REFUSAL_SECONDS:
            return Condition(self._refusal, warning)
        return Condition(None if self._is_prepared else "is being prepared", warning)

    def _ping_once(self) -> Future[str | None]:
        # However many callers wait, and however long it hangs: one ping at a time.
        if self._ping is None or self._ping.done():
            self._ping = _in_daemon_thread(self._store.ping)
        return self._ping

    def install(self, app: FastAPI) -> None:
        """Let `app` answer 503 to what the store's driver raises when the store is unavailable."""
        for outage in self._store.outages:
            app.add_exception_handler(outage, self._respond_503)

    async def _respond_503(self, request: Request, exc: Exception) -> Response:
        self._report(exc)
        self._recheck.set()
        if isinstance(exc, CannotServe):
            self._refused_at, self._refusal = time.monotonic(), str(exc)
        if isinstance(exc, CredentialsRejected):
            detail = f"This service is misconfigured: {self.name} rejects its credentials."
            return render(Unavailable(f"{self.name}_unavailable", detail))
        return render(store_unavailable(self.name))

    def _report(self, exc: Exception) -> None:
        if isinstance(exc, CredentialsRejected):
            # It lasts until an operator acts, and every ping and request meets it.
            self._warn_of_settings(str(exc))
        else:
            logger.warning("%s is unavailable: %s", self.name, exc)


def _in_daemon_thread(work: Callable[[], Result]) -> Future[Result]:
    """Call it in a thread that, unlike anyio's and an executor's, keeps no process from ending."""
    outcome: Future[Result] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work()
        except Exception as exc:  # the caller awaits it
            outcome.set_exception(exc)
        else:
            outcome.set_result(result)

    Thread(target=run, name="store", daemon=True).start()
    return outcome
