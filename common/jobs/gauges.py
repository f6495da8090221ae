"""How full a tube is, read when the process that works on it is scraped."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from common.jobs.queue import JobQueue, QueueUnavailable, Tube
from common.telemetry import metrics
from common.telemetry.instruments import Readings

# A scrape waits no longer for Beanstalkd, and all that a scrape reads is of one moment.
TIMEOUT_SECONDS = 0.25
FRESH_SECONDS = 1.0


class TubeGauges:
    """Measures a tube on all its servers over connections of its own, for as long as this object lives.

    A server that is unavailable shows nothing.
    """

    def __init__(self, queues: Sequence[JobQueue]) -> None:
        seconds = TIMEOUT_SECONDS / len(queues)
        self._queues = [JobQueue(*queue.address, queue.tube, seconds) for queue in queues]
        self._tube = queues[0].tube
        self._last = Tube({}, {})
        self._read_at = -FRESH_SECONDS
        metrics.tube_jobs.read_from(self._read_jobs)
        metrics.oldest_job.read_from(self._read_ages)

    def close(self) -> None:
        for queue in self._queues:
            queue.close()

    def _measure(self) -> Tube:
        if time.monotonic() > self._read_at + FRESH_SECONDS:
            self._last = _together(self._measured())
            self._read_at = time.monotonic()
        return self._last

    def _measured(self) -> Iterator[Tube]:
        for queue in self._queues:
            with suppress(QueueUnavailable):
                yield queue.measure()

    def _read_jobs(self) -> Readings:
        return [((self._tube, state), count) for state, count in self._measure().jobs.items()]

    def _read_ages(self) -> Readings:
        return [((self._tube, state), age) for state, age in self._measure().age_seconds.items()]


def _together(tubes: Iterable[Tube]) -> Tube:
    """All jobs, and the greatest ages."""
    jobs: Counter[str] = Counter()
    ages: dict[str, int] = {}
    for tube in tubes:
        jobs.update(tube.jobs)
        ages = {state: max(age, ages.get(state, 0)) for state, age in tube.age_seconds.items()}
    return Tube(dict(jobs), ages)
