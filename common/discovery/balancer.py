"""Which instance of a service gets the next request."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from common.discovery.directory import Directory
from common.discovery.models import Instance, Status

# After one refused connection, or so many broken answers in a row, an instance is passed over for a
# while, twice as long each time (Envoy's outlier detection, with the figures of a small suite).
FAILURES = 5
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0

FORGET_ABOVE = 1000


@dataclass
class _Record:
    busy: int = 0
    failures: int = 0
    pause: float = 0.0
    paused_until: float = 0.0


class Balancer:
    """The less busy of two at random, passing over those that failed just now. Threads may share it."""

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._lock = Lock()

    def choose(self, service_name: str, tried: Collection[Instance] = ()) -> Instance | None:
        """An instance not yet tried; None if there is none. The last one left is never passed over."""
        # By id: since it was tried, a new table may say of the same one that it was heard of again.
        done = {instance.instance_id for instance in tried}
        candidates = [
            instance
            for instance in self._directory.instances(service_name)
            if instance.status is not Status.DRAINING and instance.instance_id not in done
        ]
        if len(candidates) > 1:
            now = self._clock()
            well = [one for one in candidates if self._record(one).paused_until <= now]
            candidates = random.sample(well or candidates, min(2, len(well or candidates)))
        return min(candidates, key=lambda one: self._record(one).busy, default=None)

    @contextmanager
    def busy(self, instance: Instance) -> Iterator[None]:
        """Counts a request to this instance for as long as it lasts."""
        record = self._record(instance)
        with self._lock:
            record.busy += 1
        try:
            yield
        finally:
            with self._lock:
                record.busy -= 1

    def succeeded(self, instance: Instance) -> None:
        record = self._record(instance)
        if record.failures:
            with self._lock:
                record.failures = 0
                record.pause = record.paused_until = 0.0

    def failed(self, instance: Instance, connected: bool) -> None:
        """Note a failure: one without even a connection, or an answer that broke off or said 502 or 504."""
        record, now = self._record(instance), self._clock()
        with self._lock:
            record.failures += 1
            is_forgiven = connected and record.failures < FAILURES
            # All that were on their way to it fail together: that is one failure, not one each.
            if is_forgiven or record.paused_until > now:
                return
            record.pause = min(max(2 * record.pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)
            record.paused_until = now + record.pause

    def _record(self, instance: Instance) -> _Record:
        record = self._records.get(instance.instance_id)
        if record is None:
            with self._lock:
                if len(self._records) > FORGET_ABOVE:
                    self._records = {key: one for key, one in self._records.items() if one.busy}
                record = self._records.setdefault(instance.instance_id, _Record())
        return record
