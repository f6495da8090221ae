"""HTTP for clients that send the same request again and again: the heartbeats of an instance."""

import logging
import time
from collections.abc import Callable
from math import inf

from pydantic import BaseModel
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from common.errors import Problem
from common.server.access_log import access_log
from common.server.protocol import BoundedProtocol
from common.telemetry import context, metrics
from registry_service.store import MAX_INSTANCES

CLOSE = (b"connection", b"close")


class RepeatProtocol(BoundedProtocol):
    """Parses the same bytes on the same connection once.

    An app that responds with 200 and a model may put `repeat` into the scope: a function that does the same
    again, and gives the model. The app responds to the problems that it raises.
    """

    # Every instance keeps one for its heartbeats, and most keep another one to watch.
    max_connections = 2 * MAX_INSTANCES + 1000

    _whole = b""  # what came last, if it was one whole request

    def data_received(self, data: bytes) -> None:
        is_next = self._is_idle() and not self._is_over
        if is_next and data == self._whole and self._respond_again():
            return
        super().data_received(data)
        is_whole = is_next and not self._is_in_head and not self.pipeline and self._deadline == inf
        self._whole = data if is_whole else b""

    def _respond_again(self) -> bool:
        repeat: Callable[[], BaseModel] | None = self.scope.get("repeat")  # type: ignore[assignment]
        if repeat is None or not self._is_usual():
            return False
        began = time.perf_counter()
        try:
            body = repeat().model_dump_json().encode()
        except Problem:
            return False
        self._write_json(body)
        self.on_response_complete()
        route: str = self.scope["route"].path  # type: ignore[typeddict-item]
        metrics.server_requests.record(time.perf_counter() - began, self.scope["method"], route, 200)
        return True

    def _is_usual(self) -> bool:
        """Whether a response is no more than its bytes."""
        is_open = not self.transport.is_closing() and not self.flow.write_paused
        is_last = CLOSE in self.server_state.default_headers
        return is_open and not is_last and not access_log.isEnabledFor(logging.DEBUG)

    def _write_json(self, body: bytes) -> None:
        context.start_from(self.headers)
        headers = [
            *self.server_state.default_headers,
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            *context.outgoing_raw_headers(),
        ]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[200], head, body))
