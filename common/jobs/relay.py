"""Puts the events of an outbox into their tubes."""

import logging
import random
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

from pydantic import RootModel

from common.jobs.background import Background
from common.jobs.producer import Producer
from common.jobs.queue import QueueUnavailable
from common.settings import Server
from common.telemetry import context
from common.telemetry.logging import OutageWarning

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

    def __init__(self, outbox: Outbox, beanstalkds: Sequence[Server]) -> None:
        super().__init__(self.run)
        self._outbox = outbox
        self._outages: tuple[type[Exception], ...] = (QueueUnavailable, *outbox.outages)
        self._beanstalkds = beanstalkds
        self._producers: dict[str, Producer] = {}
        self._warn = OutageWarning(logger)

    def run(self, stop: Event) -> None:
        """Deliver events until `stop` is set."""
        while not stop.is_set():
            try:
                is_empty = not self._outbox.relay(self._deliver)
                self._warn.worked()
                if is_empty:
                    stop.wait(random.uniform(*POLL_SECONDS))
            except self._outages as exc:
                self._warn(f"events wait in the outbox: {exc}")
                stop.wait(random.uniform(*OUTAGE_PAUSE_SECONDS))
            except Exception:  # whatever it is, the events are kept and the thread goes on
                logger.exception("events wait in the outbox")
                stop.wait(max(OUTAGE_PAUSE_SECONDS))
        for producer in self._producers.values():
            producer.close()

    def _deliver(self, event: RecordedEvent) -> None:
        if event.tube not in self._producers:
            self._producers[event.tube] = Producer(self._beanstalkds, event.tube)
        with context.under(event.request_id, event.traceparent):
            self._producers[event.tube].put(RootModel(event.payload))
