"""A standby that answers reads which may be a moment old, for as long as it is known to lag by little."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event
from typing import Any

from sqlalchemy import Executable, text

from common.telemetry import metrics
from common.telemetry.instruments import Readings
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

# What is read from it is no older.
MAX_LAG_SECONDS = 5.0
CHECK_SECONDS = 0.5

WRITTEN = text("SELECT CAST(pg_current_wal_lsn() AS text)")
# Not in recovery is not a standby: after a failover it may be another history.
HAS_REPLAYED = text("SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() >= CAST(:written AS pg_lsn)")

Rows = Callable[[Executable, Mapping[str, object]], list[Any]]
Outages = tuple[type[Exception], ...]


class Replica:
    """Compares the standby with the primary, and answers reads meanwhile. Threads may share it.

    The standby's own clock and counters would do only while it is connected to
    the primary. So a place in the primary's log is noted with the time; once the
    standby has replayed that, what it shows is as old as the note at most.
    """

    def __init__(self, primary: Rows, standby: Rows, reconnect: Callable[[], None], outages: Outages) -> None:
        self._primary = primary
        self._standby = standby
        self._reconnect = reconnect
        self._outages = outages
        self._noted: tuple[float, str] | None = None
        self._as_of = -math.inf
        self._warn = RepeatedWarning(logger)
        metrics.replica_lag.read_from(self._read_lag)

    @property
    def lag_seconds(self) -> float:
        """How old what it shows is, at most."""
        return time.monotonic() - self._as_of

    @property
    def warning(self) -> str | None:
        """Why it is not used now, if it is not."""
        return None if self._is_usable else "the replica is unavailable, or lags: the primary is read"

    @property
    def _is_usable(self) -> bool:
        return self.lag_seconds <= MAX_LAG_SECONDS

    def rows(self, statement: Executable, values: Mapping[str, object]) -> list[Any]:
        """What the standby has; nothing while it cannot be used."""
        return self._ask(statement, values) if self._is_usable else []

    def _ask(self, statement: Executable, values: Mapping[str, object]) -> list[Any]:
        try:
            return self._standby(statement, values)
        except self._outages as exc:
            self._warn(f"the primary is read instead of the replica: {exc}")
            self._as_of = -math.inf
            return []

    def watch(self, stop: Event) -> None:
        """Compare the two until `stop` is set. While the primary is away, nothing shows that they differ."""
        while not stop.is_set():
            with suppress(*self._outages):
                self._compare()
            stop.wait(CHECK_SECONDS)

    def _compare(self) -> None:
        if self._noted is None:
            now = time.monotonic()
            [(written,)] = self._primary(WRITTEN, {})
            self._noted = now, written
        at, written = self._noted
        for is_standby, has_replayed in self._ask(HAS_REPLAYED, {"written": written}):
            if not is_standby:
                # It was promoted. The URL may lead to another one, and the note is of the last primary's log.
                self._reconnect()
                self._noted = None
            elif has_replayed:
                self._as_of, self._noted = at, None

    def _read_lag(self) -> Readings:
        return [((), self.lag_seconds)]
