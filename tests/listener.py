"""A client of a live stream that resumes it whenever it ends, as a browser does."""

from collections.abc import Mapping
from http.client import HTTPException
from threading import Event as Flag
from typing import Self

from common.jobs.background import Background
from tests.event_client import Event, EventClient
from tests.polling import eventually

RETRY_SECONDS = 0.3


class Listener(Background):
    """Listens through this port, in a thread, for as long as the context lasts."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None, **query: str) -> None:
        super().__init__(self._listen)
        self._port = port
        self._headers = headers
        self._query = query
        self._clients: list[EventClient] = []

    def __enter__(self) -> Self:
        """Listen, from here on."""
        super().__enter__()
        eventually(lambda: self._clients)
        return self

    def heard(self) -> list[Event]:
        """All events so far, in their order."""
        return [event for client in self._clients for event in list(client.events)]

    def texts(self) -> list[str]:
        """Those of them that have one."""
        return [event.data["text"] for event in self.heard() if "text" in event.data]

    def _listen(self, stop: Flag) -> None:
        while not stop.is_set():
            heard = self.heard()
            try:
                client = EventClient(
                    self._port, self._headers, heard[-1].id if heard else None, **self._query
                )
            except (OSError, HTTPException):
                stop.wait(RETRY_SECONDS)
                continue
            if client.status == 200:
                self._clients.append(client)
            while not (client.is_over or stop.wait(RETRY_SECONDS)):
                pass
            client.close()
