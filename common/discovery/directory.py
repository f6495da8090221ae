"""Where every service is: the registry's snapshot, watched and kept in memory."""

import logging
import random
import time
from collections.abc import Mapping
from threading import Event, Thread

import httpx
from pydantic import ValidationError

from common.discovery.models import LEASE_SECONDS, Instance, Table

logger = logging.getLogger(__name__)


WATCH_SECONDS = 20


class Directory:
    """Where every service is: a table in memory, kept new in the background.

    No request ever waits for the registry. When it is gone, the last table
    stays in use; when it comes back empty, instances that have not registered
    again are kept until their lease would have run out.
    """

    def __init__(self, registry_url: str | None) -> None:
        self._registry_url = registry_url
        self._epoch = ""
        self._version = 0
        self._services: Mapping[str, tuple[Instance, ...]] = {}
        self._known: Mapping[str, tuple[Instance, ...]] = {}
        self._known_until = 0.0
        self._stop = Event()
        self.is_current = False

    def services(self) -> Mapping[str, tuple[Instance, ...]]:
        return self._services

    def instances(self, service_name: str) -> tuple[Instance, ...]:
        return self._services.get(service_name, ())

    def start(self) -> None:
        if self._registry_url:
            # A daemon: it may be in the middle of a long poll when the process ends.
            Thread(target=self._watch, args=[self._registry_url], name="directory", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _watch(self, registry_url: str) -> None:
        timeout = httpx.Timeout(2.0, read=WATCH_SECONDS + 5)
        with httpx.Client(base_url=registry_url, timeout=timeout, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    self.accept(self._poll(client), time.monotonic())
                except (httpx.HTTPError, ValidationError) as exc:
                    if self.is_current:
                        logger.warning("the registry cannot be reached, its last table stays: %r", exc)
                    self.is_current = False
                    self._stop.wait(random.uniform(0.2, 1.0))

    def _poll(self, client: httpx.Client) -> Table:
        remembered = self._known_until - time.monotonic()
        wait = min(remembered, WATCH_SECONDS) if remembered > 0 else WATCH_SECONDS
        position = {"epoch": self._epoch, "version": str(self._version), "wait": f"{wait:.3f}"}
        answer = client.get("/services", params=position if self.is_current else None)
        return Table.model_validate_json(answer.raise_for_status().content)

    def accept(self, table: Table, now: float) -> None:
        """Use this table from now on."""
        if table.epoch != self._epoch:
            self._known, self._known_until = self._services, now + LEASE_SECONDS
        # Who was listed again once is the new table's to tell of: also that it has left.
        known = self._known if now < self._known_until else {}
        self._known = {
            name: _without(instances, table.services.get(name, ())) for name, instances in known.items()
        }
        self._services = {
            name: table.services.get(name, ()) + self._known.get(name, ())
            for name in table.services.keys() | self._known.keys()
        }
        self._epoch, self._version = table.epoch, table.version
        self.is_current = True


def _without(known: tuple[Instance, ...], listed: tuple[Instance, ...]) -> tuple[Instance, ...]:
    places = {instance.netloc for instance in listed}
    return tuple(instance for instance in known if instance.netloc not in places)
