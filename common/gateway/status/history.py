"""What one process was like in the last minute."""

import itertools
from collections import deque
from dataclasses import dataclass

from common.gateway.status.reading import Reading, Work

SCRAPE_SECONDS = 2.0
MINUTE_SECONDS = 60.0
# One before the minute, from which its first rate is counted.
MAX_SAMPLES = int(MINUTE_SECONDS / SCRAPE_SECONDS) + 1
# Over which a rate is taken: over one scrape, it would jump.
RATE_SECONDS = 10.0


@dataclass(frozen=True)
class Target:
    """A process that may be scraped, and the status that the registry has of it."""

    service: str
    netloc: str
    host: str
    status: str
    version: str = ""
    is_worker: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.service, self.netloc


class History:
    """The scrapes of one target in the last minute; all times are monotonic seconds."""

    def __init__(self, target: Target, listed_at: float) -> None:
        self.target = target
        self.listed_at = listed_at
        self.is_gone = False
        # Why the last scrape failed, if it did, and whether nothing of use was said at all.
        self.failure = ""
        self.is_silent = False
        self.last: Reading | None = None
        self._work: deque[tuple[float, Work]] = deque(maxlen=MAX_SAMPLES)

    def record(self, at: float, reading: Reading) -> None:
        """Add a scrape; the numbers of another process at this address begin anew."""
        if self.last and self.last.started_at != reading.started_at:
            self._work.clear()
        self.failure, self.is_silent, self.last = "", False, reading
        self._work.append((at, reading.jobs if self.target.is_worker else reading.requests))

    def fail(self, failure: str, is_silent: bool) -> None:
        self.failure, self.is_silent = failure, is_silent

    def rates(self) -> list[float]:
        """Of requests or jobs, a second, from each scrape to the next."""
        return [
            (after.count - before.count) / (later - earlier)
            for (earlier, before), (later, after) in itertools.pairwise(self._work)
        ]

    def rate(self) -> float | None:
        """Of requests or jobs, a second; None before the second scrape."""
        seconds, before, after = self._span(RATE_SECONDS)
        return (after.count - before.count) / seconds if seconds else None

    def error_rate(self) -> float | None:
        """Of those that failed, a second; None before the second scrape."""
        seconds, before, after = self._span(RATE_SECONDS)
        return (after.errors - before.errors) / seconds if seconds else None

    def quantile(self, share: float) -> float | None:
        """How many seconds this share of the last minute took at most; None if there was nothing."""
        _, before, after = self._span(MINUTE_SECONDS)
        within = {bound: count - before.within.get(bound, 0) for bound, count in sorted(after.within.items())}
        return _quantile(within, share)

    def _span(self, seconds: float) -> tuple[float, Work, Work]:
        """The oldest and the newest work of these last seconds, and how long they are apart."""
        if len(self._work) < 2:
            return 0, Work(), Work()
        end, after = self._work[-1]
        start, before = next(one for one in self._work if one[0] >= end - seconds - SCRAPE_SECONDS / 2)
        return end - start, before, after


def _quantile(within: dict[float, float], share: float) -> float | None:
    """As Prometheus finds it: on a straight line inside its bucket, at most the last finite bound."""
    total = max(within.values(), default=0)
    lower, below = 0.0, 0.0
    for bound, count in within.items():
        if count > 0 and count >= share * total:
            is_last = bound == float("inf")
            return lower if is_last else lower + (bound - lower) * (share * total - below) / (count - below)
        lower, below = bound, count
    return None
