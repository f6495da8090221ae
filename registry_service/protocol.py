"""HTTP for clients that send the same request again and again: instances with heartbeats, and watchers."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from common.errors import Problem
from common.server.access_log import access_log
from common.server.protocol import BoundedProtocol
from common.telemetry import context, metrics
from common.telemetry.instruments import Readings
from registry_service.store import MAX_INSTANCES

BATCH_SECONDS = 0.02

WITH_QUERY = re.compile(rb"([A-Z]+ /[\w/-]*\?)([\w.=&-]{0,250})( HTTP/1\.1\r\n.*)", re.DOTALL)

CLOSE = (b"connection", b"close")
RESPONSE = STATUS_LINE[200] + b"%bcontent-length: %d\r\ncontent-type: application/json\r\n%b\r\n%b"

# JSON at once or later; None where only the app can respond.
Body = bytes | asyncio.Future[bytes] | None


class Batch:
    """Requests that came again, which are handled together every few milliseconds.

    One alone finds little of what it needs in the processor's caches, and takes three times as long.
    """

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        self.without_response = 0
        metrics.active_requests.read_from(self._read_active)

    def add(self, call: Callable[[], None]) -> None:
        if not self._calls:
            asyncio.get_running_loop().call_later(BATCH_SECONDS, self._run)
        self._calls.append(call)
        self.without_response += 1

    def _run(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            call()

    def _read_active(self) -> Readings:
        return [((), self.without_response)]


class RepeatProtocol(BoundedProtocol):
    """Parses what comes again on a connection once: the same bytes, except for the query.

    An app that responds with 200 and JSON may put `repeat` into the scope: a function of the query that does
    the same again, and gives the body. To the problems that it raises the app responds, as it does whenever a
    response is more than its bytes: what came is kept for it until then.
    """

    # Every instance keeps one for its heartbeats, and most keep another one to watch.
    max_connections = 2 * MAX_INSTANCES + 1000

    _batches: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Batch]] = WeakKeyDictionary()

    _last = b""  # what the app had to read, if that was one whole request
    _kept = _query = b""
    _began = 0.0
    _pending: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: Any) -> None:
        if self.loop not in self._batches:
            self._batches[self.loop] = Batch()
        self._batch = self._batches[self.loop]
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._kept:
            self._pass_on()
        query = self._query_of_same(data)
        if query is None:
            self._read(data)
        else:
            self._kept, self._query, self._began = data, query, time.perf_counter()
            self._batch.add(self._respond_again)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self._kept:
            self._pass_on()
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Repeated requests leave this timer alone, as setting it costs as much as a response."""
        left = self._began + self.timeout_keep_alive - time.perf_counter()
        if left > 0 or self._kept:
            again = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(max(left, 1), again)
        else:
            super().timeout_keep_alive_handler()

    def _query_of_same(self, data: bytes) -> bytes | None:
        """The query of a request that is otherwise the last one, if the app can repeat that."""
        if not self._last or "repeat" not in self.scope:
            return None
        if data == self._last:
            return self.scope["query_string"]
        new, last = WITH_QUERY.fullmatch(data), WITH_QUERY.fullmatch(self._last)
        return new[2] if new and last and new.group(1, 3) == last.group(1, 3) else None

    def _read(self, data: bytes) -> None:
        is_next = self._is_idle() and not self._is_over
        super().data_received(data)
        is_whole = is_next and not self._is_in_head and not self.pipeline and self._deadline == inf
        self._last = data if is_whole else b""

    def _respond_again(self) -> None:
        if not self._kept or self._pending:
            return
        body = self._repeated()
        if body is None:
            self._pass_on()
        elif isinstance(body, bytes):
            self._send(body)
        else:
            self._pending = body
            body.add_done_callback(self._send_when_usual)

    def _repeated(self) -> Body:
        repeat: Callable[[bytes], Body] = self.scope["repeat"]  # type: ignore[typeddict-item]
        try:
            return repeat(self._query) if self._is_usual() else None
        except Problem:
            return None

    def _send_when_usual(self, body: asyncio.Future[bytes]) -> None:
        if body is not self._pending:
            return
        if body.exception() or not self._is_usual():
            self._pass_on()
        else:
            self._send(body.result())

    def _pass_on(self) -> None:
        """Have the app respond."""
        kept = self._kept
        self._forget()
        self._read(kept)

    def _forget(self) -> None:
        if self._kept:
            self._batch.without_response -= 1
        if self._pending:
            self._pending.cancel()
        self._kept, self._pending = b"", None

    def _is_usual(self) -> bool:
        """Whether a response is no more than its bytes."""
        is_open = self._is_idle() and not self.transport.is_closing() and not self.flow.write_paused
        is_last = CLOSE in self.server_state.default_headers
        return is_open and not is_last and not access_log.isEnabledFor(logging.DEBUG)

    def _send(self, body: bytes) -> None:
        self._forget()
        context.start_from(self.headers)
        defaults, ids = _lines(self.server_state.default_headers), _lines(context.outgoing_raw_headers())
        self.transport.write(RESPONSE % (defaults, len(body), ids, body))
        route: str = self.scope["route"].path  # type: ignore[typeddict-item]
        metrics.server_requests.record(time.perf_counter() - self._began, self.scope["method"], route, 200)


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
