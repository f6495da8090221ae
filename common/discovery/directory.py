"""Where every service is: the registries' snapshots, watched and kept in memory."""

import logging
import random
import time
from threading import Event, Lock, Thread
from typing import Self

import httpx
from pydantic import TypeAdapter, ValidationError

from common.discovery.models import Changes, Instance, Snapshot, addresses, tls
from common.discovery.table import RegistryTable, Services, merged
from common.telemetry import metrics
from common.telemetry.instruments import Readings

logger = logging.getLogger(__name__)

WATCH_SECONDS = 20
# A registry of the last version knows no changes, and sends snapshots.
NEWS: TypeAdapter[Snapshot | Changes] = TypeAdapter(Snapshot | Changes)


class Directory:
    """Where every service is, in memory, kept new in the background.

    No request ever waits for a registry. Of several, each is watched: one that
    is away or lacks instances is made up for by the others.
    """

    def __init__(self, registry_url: str | None) -> None:
        self._urls = addresses(registry_url)
        self._tables = [RegistryTable() for _ in self._urls] or [RegistryTable()]
        self._services: Services = {}
        self._lock = Lock()
        self._stop = Event()
        metrics.registry_is_current.read_from(self._read_current)

    @property
    def is_current(self) -> bool:
        """Whether any registry answers."""
        return any(table.is_current for table in self._tables)

    def services(self) -> Services:
        return self._services

    def instances(self, service_name: str) -> tuple[Instance, ...]:
        return self._services.get(service_name, ())

    def _read_current(self) -> Readings:
        return [((), self.is_current)]

    def __enter__(self) -> Self:
        for url, table in zip(self._urls, self._tables, strict=False):
            # A daemon: it may be in the middle of a long poll when the process ends.
            Thread(target=self._watch, args=[url, table], name="directory", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self, url: str, table: RegistryTable) -> None:
        last_failure = ""
        timeout = httpx.Timeout(2.0, read=WATCH_SECONDS + 5)
        with httpx.Client(base_url=url, timeout=timeout, trust_env=False, verify=tls(url)) as client:
            while not self._stop.is_set():
                try:
                    self._update(table, _poll(client, table), time.monotonic())
                    last_failure = ""
                except (httpx.HTTPError, ValidationError) as exc:
                    failure = f"the registry at {client.base_url.netloc.decode()} cannot be reached: {exc!r}"
                    if failure != last_failure:
                        # A process may well start before its registry: that is no warning.
                        logger.log(logging.WARNING if table.is_current else logging.INFO, failure)
                    last_failure = failure
                    self._lose(table)
                    self._stop.wait(random.uniform(0.2, 1.0))

    def update(self, snapshot: Snapshot, now: float, registry: int = 0) -> None:
        """Use this snapshot of a registry, the first one or another, from now on."""
        self._update(self._tables[registry], snapshot, now)

    def _update(self, table: RegistryTable, news: Snapshot | Changes, now: float) -> None:
        with self._lock:
            table.update(news, now)
            self._services = merged(self._tables)

    def _lose(self, table: RegistryTable) -> None:
        with self._lock:
            table.is_current = False
            self._services = merged(self._tables)


def _poll(client: httpx.Client, table: RegistryTable) -> Snapshot | Changes:
    response = client.get("/services", params=_position(table) if table.is_current else None)
    return NEWS.validate_json(response.raise_for_status().content)


def _position(table: RegistryTable) -> dict[str, str]:
    retained_for = table.retained_until - time.monotonic()
    wait = min(retained_for, WATCH_SECONDS) if retained_for > 0 else WATCH_SECONDS
    known = table.snapshot
    return {"epoch": known.epoch, "version": str(known.version), "wait": f"{wait:.3f}", "changes": "true"}
