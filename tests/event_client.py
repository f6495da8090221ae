"""A client of server-sent events, on a socket of its own."""

import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from threading import Thread
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from tests.polling import PATIENCE_SECONDS, eventually


class Event(NamedTuple):
    id: str
    kind: str
    data: Any


class EventClient:
    """Reads a stream in a thread, until it ends or the client is closed."""

    def __init__(
        self,
        port: int,
        headers: Mapping[str, str] | None = None,
        last_id: str | None = None,
        is_reading: bool = True,
        **query: str,
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        resumed = {"Last-Event-ID": last_id} if last_id else {}
        self._connection.request("GET", f"/stream?{urlencode(query)}", headers={**(headers or {}), **resumed})
        self._socket = self._connection.sock
        self.response = self._connection.getresponse()
        self.status = self.response.status
        self.events: list[Event] = []
        self.comments = 0
        self.is_over = False
        # Whether the response has ended as one does that is whole.
        self.is_complete = False
        self._thread = Thread(target=self._read, daemon=True)
        if is_reading:
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.ident:
            self._thread.join()
        self._connection.close()

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def texts(self) -> list[str]:
        return [event.data["text"] for event in self.events if "text" in event.data]

    def waits_for(self, count: int) -> list[Event]:
        """The events so far, as soon as there are so many."""
        eventually(lambda: len(self.events) >= count)
        return self.events

    def waits_for_text(self, text: str) -> list[str]:
        """The texts so far, as soon as this one is among them."""
        eventually(lambda: text in self.texts())
        return self.texts()

    def _read(self) -> None:
        fields: dict[str, str] = {}
        with suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            while line := self.response.readline().decode():
                name, _, value = line.rstrip("\n").partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif name:
                    fields[name] = value
                else:
                    self.events.append(Event(fields["id"], fields["event"], json.loads(fields["data"])))
                    fields = {}
            self.is_complete = True
        self.is_over = True
