"""A loop in a thread of its own, beside a service's requests."""

from collections.abc import Callable
from threading import Event, Thread
from types import TracebackType
from typing import Self


class Background:
    """Runs a loop, which ends when its event is set, for as long as the service runs."""

    def __init__(self, loop: Callable[[Event], None]) -> None:
        self._loop = loop
        self._stop = Event()

    def __enter__(self) -> Self:
        self._stop.clear()
        self._thread = Thread(target=self._loop, args=(self._stop,), name="background", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
