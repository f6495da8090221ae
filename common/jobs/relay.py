"""Puts the events of an outbox into their tubes."""

import logging
import random
from collections.abc import Callable
from threading import Event
from typing import Any, Protocol

from pydantic import RootModel

from common.jobs.background import Background
from common.jobs.queue import JobQueue, QueueUnavailable
from common.telemetry import context
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

POLL_SECONDS = (0.3, 0.5)
OUTAGE_PAUSE_SECONDS = (0.5, 2.0)


class RecordedEvent(Protocol):
    """An event of an outbox, whichever database has it."""

    @property
    def tube(self) -> str: ...
    @property
    def payload(self) -> dict[str, Any]: ...
    @property
    def request_id(self) -> str: ...
    @property
    def traceparent(self) -> str: ...


class Outbox(Protocol):
    """Events that are recorded, but perhaps not delivered yet."""

    @property
    def outages(self) -> tuple[type[Exception], ...]: ...
    def relay(self, deliver: Callable[[Any], None]) -> int: ...


class Relay(Background):
    """Delivers what is in the outbox; as long as that or Beanstalkd is away, it waits."""

    def __init__(self, outbox: Outbox, host: str, port: int) -> None:
        super().__init__(self.run)
        self._outbox = outbox
        self._outages: tuple[type[Exception], ...] = (QueueUnavailable, *outbox.outages)
        self._address = (host, port)
        self._queues: dict[str, JobQueue] = {}
        self._warn = RepeatedWarning(logger)
        self._has_worked = False

    def run(self, stop: Event) -> None:
        """Deliver events until `stop` is set."""
        while not stop.is_set():
            try:
                is_empty = not self._outbox.relay(self._deliver)
                self._has_worked = True
                if is_empty:
                    stop.wait(random.uniform(*POLL_SECONDS))
            except self._outages as exc:
                # A process may well start before its database: that is no warning.
                if self._has_worked:
                    self._warn(f"events wait in the outbox: {exc}")
                stop.wait(random.uniform(*OUTAGE_PAUSE_SECONDS))
            except Exception:  # whatever it is, the events are kept and the thread goes on
                logger.exception("events wait in the outbox")
                stop.wait(max(OUTAGE_PAUSE_SECONDS))
        for queue in self._queues.values():
            queue.close()

    def _deliver(self, event: RecordedEvent) -> None:
        if event.tube not in self._queues:
            self._queues[event.tube] = JobQueue.connect(*self._address, event.tube)
        context.start(event.request_id, event.traceparent)
        self._queues[event.tube].put(RootModel(event.payload))
