"""How full a tube is, read when the process that works on it is scraped."""

import time
from contextlib import suppress

from common.jobs.queue import JobQueue, QueueUnavailable, Tube
from common.telemetry import metrics
from common.telemetry.instruments import Readings

# A scrape waits no longer for Beanstalkd, and all that a scrape reads is of one moment.
TIMEOUT_SECONDS = 0.25
FRESH_SECONDS = 1.0


class TubeGauges:
    """Measures the tube of a queue over a connection of its own, for as long as this object lives.

    While Beanstalkd is unavailable, there is nothing to show.
    """

    def __init__(self, queue: JobQueue) -> None:
        self._queue = JobQueue(*queue.address, queue.tube, TIMEOUT_SECONDS)
        self._last: Tube | None = None
        self._read_at = -FRESH_SECONDS
        metrics.tube_jobs.read_from(self._read_jobs)
        metrics.oldest_job.read_from(self._read_ages)

    def close(self) -> None:
        self._queue.close()

    def _measure(self) -> Tube:
        if time.monotonic() > self._read_at + FRESH_SECONDS:
            self._last = None
            with suppress(QueueUnavailable):
                self._last = self._queue.measure()
            self._read_at = time.monotonic()
        return self._last or Tube({}, {})

    def _read_jobs(self) -> Readings:
        return [((self._queue.tube, state), count) for state, count in self._measure().jobs.items()]

    def _read_ages(self) -> Readings:
        return [((self._queue.tube, state), age) for state, age in self._measure().age_seconds.items()]
