"""A client of a live stream that resumes it whenever it ends, as a browser does."""

from collections.abc import Mapping
from http.client import HTTPException
from threading import Event as Flag
from threading import Thread
from types import TracebackType
from typing import Self

from tests.event_client import Event, EventClient

RETRY_SECONDS = 0.3


class Listener:
    """Listens through this port, in a thread, for as long as the context lasts."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None, **query: str) -> None:
        self._port = port
        self._headers = headers
        self._query = query
        self._clients: list[EventClient] = []
        self._stop = Flag()
        self._thread = Thread(target=self._listen, name="listener")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def heard(self) -> list[Event]:
        """All events so far, in their order."""
        return [event for client in self._clients for event in list(client.events)]

    def _listen(self) -> None:
        while not self._stop.is_set():
            heard = self.heard()
            try:
                client = EventClient(
                    self._port, self._headers, heard[-1].id if heard else None, **self._query
                )
            except (OSError, HTTPException):
                self._stop.wait(RETRY_SECONDS)
                continue
            if client.status == 200:
                self._clients.append(client)
            while not (client.is_over or self._stop.wait(RETRY_SECONDS)):
                pass
            client.close()
