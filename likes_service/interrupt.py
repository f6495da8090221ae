"""Ends a wait for the mail server from another thread."""

import socket
import time
from contextlib import suppress
from threading import Lock


class Interrupt:
    """Breaks off a session that may wait for minutes.

    The thread that waits watches its connection with it; another thread calls
    it, again and again, until the wait is over.
    """

    def __init__(self) -> None:
        # How long a wait may go on after the first call.
        self.grace_seconds = 0.0
        self._lock = Lock()
        self._connection: socket.socket | None = None
        self._called_at: float | None = None

    def watch(self, connection: socket.socket) -> None:
        """Break off this connection when the time comes."""
        with self._lock:
            # A duplicate: TLS detaches the socket that it wraps.
            self._connection = connection.dup()

    def close(self) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection = None

    def __call__(self) -> None:
        with self._lock:
            now = time.monotonic()
            self._called_at = self._called_at or now
            if self._connection and now - self._called_at >= self.grace_seconds:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)
