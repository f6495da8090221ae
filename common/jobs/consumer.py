"""A worker's loop in a thread of a service that has no worker."""

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self


class Consumer:
    """Runs `work`, which ends when its event is set, for as long as the service runs."""

    def __init__(self, work: Callable[[Event], None]) -> None:
        self._work = work
        self._stop = Event()

    def __enter__(self) -> Self:
        self._stop.clear()
        self._thread = Thread(target=self._work, args=(self._stop,), name="events", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
