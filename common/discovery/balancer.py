"""Which instance of a service gets the next request."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from threading import Lock

import httpx

from common.discovery.directory import Directory
from common.discovery.identity import UnknownRoute
from common.discovery.models import Instance, Status
from common.telemetry import metrics
from common.telemetry.instruments import Readings

# A caller tries so many instances, one after the other.
MAX_ATTEMPTS = 3

# Statuses of an instance that is broken or cannot reach its own upstream. A 503 is the service's own word.
UPSTREAM_FAILURES = {502, 504}

# After one refused connection, or so many failures in a row, an instance is ejected for a while, twice
# as long each time (Envoy's outlier detection, with the figures of a small suite).
CONSECUTIVE_FAILURES = 5
BASE_EJECTION_SECONDS = 5.0
MAX_EJECTION_SECONDS = 60.0

MAX_TRACKED_INSTANCES = 10_000


@dataclass(slots=True)
class _Stats:
    service_name: str
    in_flight: int = 0
    failures: int = 0
    ejection_seconds: float = 0.0
    ejected_until: float = 0.0


class Attempt:
    """One request to one instance: in flight inside the `with`, and a success unless that fails."""

    __slots__ = ("_balancer", "_has_failed", "_stats", "instance")

    def __init__(self, balancer: "Balancer", instance: Instance, stats: _Stats) -> None:
        self._balancer = balancer
        self._stats = stats
        self._has_failed = False
        self.instance = instance

    def __enter__(self) -> Instance:
        self._has_failed = False
        with self._balancer.lock:
            self._stats.in_flight += 1
        return self.instance

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        with self._balancer.lock:
            self._stats.in_flight -= 1
            if exc is None and not self._has_failed:
                self._stats.failures = 0
                self._stats.ejection_seconds = self._stats.ejected_until = 0.0
        if isinstance(exc, httpx.RequestError) and not isinstance(exc, UnknownRoute):
            self.fail(connected=not isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout))

    def fail(self, connected: bool = True) -> None:
        """Note a failure: a connection that was not made, a response that broke off, a 502 or 504."""
        self._has_failed = True
        stats, now = self._stats, self._balancer.clock()
        with self._balancer.lock:
            stats.failures += 1
            is_tolerated = connected and stats.failures < CONSECUTIVE_FAILURES
            # All requests on their way to the instance fail together: that is one failure, not one each.
            if is_tolerated or stats.ejected_until > now:
                return
            stats.ejection_seconds = min(
                max(2 * stats.ejection_seconds, BASE_EJECTION_SECONDS), MAX_EJECTION_SECONDS
            )
            stats.ejected_until = now + stats.ejection_seconds
        metrics.ejections.add(self.instance.service_name)


class Balancer:
    """The less busy of two instances at random: of those not ejected, and of these, of those that are up.

    Threads may share it.
    """

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._stats: dict[str, _Stats] = {}
        self.clock = clock
        self.lock = Lock()
        metrics.ejected_instances.read_from(self._read_ejected)

    def attempts(self, service_name: str) -> Iterator[Attempt]:
        """At most MAX_ATTEMPTS, each at another instance."""
        tried: list[Instance] = []
        while len(tried) < MAX_ATTEMPTS and (attempt := self.attempt(service_name, tried)):
            if tried:
                metrics.retries.add(service_name)
            tried.append(attempt.instance)
            yield attempt

    def attempt(self, service_name: str, tried: Collection[Instance] = ()) -> Attempt | None:
        """A request to an instance not yet tried; None if there is none. The last one is never ejected."""
        candidates = self._candidates(service_name, tried)
        if len(candidates) > 1:
            now = self.clock()
            candidates = [one for one in candidates if self._of(one).ejected_until <= now] or candidates
            # One that has just started is listed before its store is prepared.
            candidates = [one for one in candidates if one.status is Status.UP] or candidates
            candidates = random.sample(candidates, min(2, len(candidates)))
            candidates.sort(key=lambda one: self._of(one).in_flight)
        return Attempt(self, candidates[0], self._of(candidates[0])) if candidates else None

    def _candidates(self, service_name: str, tried: Collection[Instance]) -> list[Instance]:
        # By id: since the attempt, a new snapshot may have the same instance with a later heartbeat.
        tried_ids = {instance.instance_id for instance in tried} if tried else ()
        return [
            instance
            for instance in self._directory.instances(service_name)
            if instance.status is not Status.DRAINING and instance.instance_id not in tried_ids
        ]

    def _of(self, instance: Instance) -> _Stats:
        stats = self._stats.get(instance.instance_id)
        if stats is None:
            with self.lock:
                if len(self._stats) > MAX_TRACKED_INSTANCES:
                    self._stats = {key: one for key, one in self._stats.items() if one.in_flight}
                stats = self._stats.setdefault(instance.instance_id, _Stats(instance.service_name))
        return stats

    def _read_ejected(self) -> Readings:
        with self.lock:
            stats, now = list(self._stats.values()), self.clock()
        return [((one.service_name,), one.ejected_until > now) for one in stats]
