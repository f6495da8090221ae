"""What the loops of this process last met: whether a worker can do its work, without a single ping."""

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

# A job that met an outage comes again within seconds; but perhaps to another worker.
VALID_SECONDS = 30.0

Kinds = Mapping[str, tuple[type[Exception], ...]]


class Conditions:
    """The outage that each loop met last, until it works again. Threads may share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = Lock()
        self._met: dict[object, tuple[float, Exception]] = {}

    def met(self, loop: object, outage: Exception) -> None:
        """This loop cannot go on for this reason."""
        with self._lock:
            self._met[loop] = (self._clock(), outage)

    def over(self, loop: object) -> None:
        """This loop has done some work."""
        with self._lock:
            self._met.pop(loop, None)

    def by_name(self, kinds: Kinds) -> dict[str, Exception]:
        """The outages, by the name of what raises such ones."""
        since = self._clock() - VALID_SECONDS
        with self._lock:
            met = [exc for at, exc in self._met.values() if at > since]
        return {name: exc for name, raised in kinds.items() for exc in met if isinstance(exc, raised)}


# Of this process: it has one or more loops, in as many threads.
conditions = Conditions()


class Redundant:
    """Loops that do the same work on several servers: it is held up when none of them can go on."""

    def __init__(self, loops: Sequence[object]) -> None:
        self._loops = set(loops)
        self._held_up: set[object] = set()

    def met(self, loop: object, outage: Exception) -> None:
        """As of Conditions, for one of these loops."""
        self._held_up.add(loop)
        if self._held_up == self._loops:
            conditions.met(self, outage)

    def over(self, loop: object) -> None:
        """As of Conditions, for one of these loops."""
        self._held_up.discard(loop)
        conditions.over(self)
