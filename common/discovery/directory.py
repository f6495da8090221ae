"""Where every service is: the registry's snapshot, watched and kept in memory."""

import logging
import random
import time
from collections.abc import Mapping
from threading import Event, Thread
from typing import Self

import httpx
from pydantic import ValidationError

from common.discovery.models import LEASE_SECONDS, Instance, Snapshot, tls

logger = logging.getLogger(__name__)

WATCH_SECONDS = 20


class Directory:
    """Where every service is: a snapshot in memory, kept new in the background.

    No request ever waits for the registry. When it is gone, the last snapshot
    stays in use; when it comes back empty, instances that have not registered
    again are kept until their lease would have run out.
    """

    def __init__(self, registry_url: str | None) -> None:
        self._registry_url = registry_url
        self._epoch = ""
        self._version = 0
        self._services: Mapping[str, tuple[Instance, ...]] = {}
        self._retained: Mapping[str, tuple[Instance, ...]] = {}
        self._retained_until = 0.0
        self._stop = Event()
        self._last_failure = ""
        self.is_current = False

    def services(self) -> Mapping[str, tuple[Instance, ...]]:
        return self._services

    def instances(self, service_name: str) -> tuple[Instance, ...]:
        return self._services.get(service_name, ())

    def __enter__(self) -> Self:
        if self._registry_url:
            # A daemon: it may be in the middle of a long poll when the process ends.
            Thread(target=self._watch, args=[self._registry_url], name="directory", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self, registry_url: str) -> None:
        timeout = httpx.Timeout(2.0, read=WATCH_SECONDS + 5)
        with httpx.Client(
            base_url=registry_url, timeout=timeout, trust_env=False, verify=tls(registry_url)
        ) as client:
            while not self._stop.is_set():
                try:
                    self.update(self._poll(client), time.monotonic())
                    self._last_failure = ""
                except (httpx.HTTPError, ValidationError) as exc:
                    self._log_once(repr(exc))
                    self.is_current = False
                    self._stop.wait(random.uniform(0.2, 1.0))

    def _log_once(self, failure: str) -> None:
        """A process may well start before its registry: that is no warning."""
        if failure != self._last_failure:
            level = logging.WARNING if self.is_current else logging.INFO
            logger.log(level, "the registry cannot be reached, its last table stays: %s", failure)
        self._last_failure = failure

    def _poll(self, client: httpx.Client) -> Snapshot:
        retained_for = self._retained_until - time.monotonic()
        wait = min(retained_for, WATCH_SECONDS) if retained_for > 0 else WATCH_SECONDS
        position = {"epoch": self._epoch, "version": str(self._version), "wait": f"{wait:.3f}"}
        response = client.get("/services", params=position if self.is_current else None)
        return Snapshot.model_validate_json(response.raise_for_status().content)

    def update(self, snapshot: Snapshot, now: float) -> None:
        """Use this snapshot from now on."""
        if snapshot.epoch != self._epoch:
            self._retained, self._retained_until = self._services, now + LEASE_SECONDS
        # Once the new registry has listed an address, only its snapshots count: also when they drop it.
        retained = self._retained if now < self._retained_until else {}
        listed = {one.netloc for instances in snapshot.services.values() for one in instances}
        self._retained = {
            name: tuple(one for one in instances if one.netloc not in listed)
            for name, instances in retained.items()
        }
        self._services = {
            name: snapshot.services.get(name, ()) + self._retained.get(name, ())
            for name in snapshot.services.keys() | self._retained.keys()
        }
        self._epoch, self._version = snapshot.epoch, snapshot.version
        self.is_current = True
