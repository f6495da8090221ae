"""uvicorn's HTTP/1.1, with bounds on what a client may send, and on how long it may take for it."""

import asyncio
import re
from math import inf
from typing import Any, cast
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from common.api.problems import render
from common.errors import BadRequest, HeadersTooLarge, MethodNotAllowed, Problem, Unavailable, UrlTooLong
from common.server.access_log import access_log
from common.server.write_buffer import WriteBuffer
from common.telemetry import context, metrics

MAX_URL_BYTES = 8 * 1024
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

# From the first byte to the end of the headers, from there to the end of the body, and for one
# response's bytes that the client does not read.
HEADER_TIMEOUT_SECONDS = 10.0
BODY_TIMEOUT_SECONDS = 30.0
WRITE_TIMEOUT_SECONDS = 30.0
FIRST_REQUEST_SECONDS = 0.5
LINGERING_CLOSE_SECONDS = 2.0

# RFC 9110, §7.2: a name or an address, and a port.
HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?")
REFUSED_METHODS = {b"CONNECT", b"TRACE"}
OTHER_METHODS = {"Allow": "DELETE, GET, HEAD, PATCH, POST"}
BODY_FOLLOWS = {b"content-length", b"transfer-encoding"}


class BoundedProtocol(HttpToolsProtocol):
    """Counts while it reads, so that nothing has to fit into memory before it is refused."""

    # Each costs a file descriptor and some kilobytes, whether or not it carries a request.
    max_connections = 4000

    _received = _head_bytes = _header_bytes = _bytes_without_progress = 0
    _is_in_head = False
    _is_over = False
    _refusal: Problem | None = None
    # When the next thing is due.
    _deadline = inf
    _deadline_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(cast("asyncio.Transport", WriteBuffer(transport, self.loop)))
        if len(self.connections) > self.max_connections:
            self._send_error(Unavailable("too_many_connections", "There are too many connections now."))
        else:
            self._set_deadline(HEADER_TIMEOUT_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._received = size = len(data)
        self._head_bytes += size
        self._bytes_without_progress += size
        super().data_received(data)
        if self._deadline == inf and self._is_idle():
            # A lone end of line: uvicorn has stopped its timer for the next request, and none has begun.
            self._set_deadline(HEADER_TIMEOUT_SECONDS)
        # The parser keeps a header to itself until it has all of it.
        most = MAX_URL_BYTES + MAX_HEADER_BYTES
        is_too_much = (self._is_in_head and self._head_bytes > most) or self._bytes_without_progress > most
        if is_too_much and not self.transport.is_closing():
            self._send_error(headers_too_large())

    def send_400_response(self, msg: str) -> None:
        if self._is_in_head and self._head_bytes > MAX_URL_BYTES + MAX_HEADER_BYTES:
            self._refusal = self._refusal or headers_too_large()
        self._send_error(self._refusal or bad_request())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._bytes_without_progress = 0
        # A chunk counts for the first request that begins in it; what others have of it is little.
        self._head_bytes, self._received = self._received, 0
        self._header_bytes = 0
        self._set_deadline(HEADER_TIMEOUT_SECONDS)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL_BYTES:
            self._reject(url_too_long())

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer: what comes after the body has been judged without it (RFC 9110, §6.5.1)
        super().on_header(name, value)
        if not (value.isascii() or _is_utf8(value)):
            self._reject(BadRequest("bad_header", "A header's value is UTF-8."))
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            self._reject(headers_too_large())

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._validate_head()
        self._set_deadline(BODY_TIMEOUT_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bytes_without_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._deadline = inf
        super().on_message_complete()

    def shutdown(self) -> None:
        """End it; a new connection first has a moment for its request, which may be on its way."""
        if self.cycle is None:
            self.loop.call_later(FIRST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_TIMEOUT_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()

    def _validate_head(self) -> None:
        assert self.parser
        if self.parser.get_method() in REFUSED_METHODS:
            detail = "This method is not for anything here."
            self._reject(MethodNotAllowed("method_not_allowed", detail, OTHER_METHODS))
        hosts = [value for name, value in self.headers if name == b"host"]
        # HTTP/1.0 has no Host; balancers' checks speak it.
        is_hostless = not hosts and self.parser.get_http_version() == "1.0"
        if not is_hostless and not _names_one_host(self.url, hosts):
            self._reject(BadRequest("bad_host", "A request names its host exactly once."))
        if self.parser.should_upgrade() and any(name in BODY_FOLLOWS for name, _ in self.headers):
            # The parser would leave the body for another protocol to read.
            self._reject(BadRequest("bad_upgrade", "A request to upgrade has no body."))

    def _reject(self, problem: Problem) -> None:
        """End the parsing: uvicorn makes whatever is raised here a call of `send_400_response`."""
        self._refusal = problem
        raise problem

    def _send_error(self, problem: Problem) -> None:
        self._is_over = True
        if self._is_response_pending():
            # This would be taken for its end.
            self.transport.abort()
            return
        context.start_from(self.headers or ())
        metrics.refused_requests.add(problem.code)
        access_log.info("refused: %s %d", problem.code, problem.status)
        response = render(problem)
        headers = [*response.raw_headers, *context.outgoing_raw_headers()]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        status = STATUS_LINE[response.status_code]
        self.transport.write(b"%bconnection: close\r\n%b\r\n%b" % (status, head, bytes(response.body)))
        # Closing with bytes unread would reset the connection, and with it the response (RFC 9112, §9.6).
        self.transport.write_eof()
        self.loop.call_later(LINGERING_CLOSE_SECONDS, self.transport.abort)

    def _is_idle(self) -> bool:
        """Whether every request that has begun has its response."""
        return not self._is_in_head and (self.cycle is None or self.cycle.response_complete)

    def _is_response_pending(self) -> bool:
        """Whether another request on this connection still gets a response, or the rest of one."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self._is_in_head or self.cycle.response_started or bool(self.pipeline)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds
        if self._deadline_timer is None:
            self._check_deadline()

    def _check_deadline(self) -> None:
        # One timer a connection: one for each request would cost more than all else here. None while nothing
        # is due: a thousand streams would wake the process a hundred times a second.
        self._deadline_timer = None
        left = self._deadline - self.loop.time()
        if 0 < left < inf:
            self._deadline_timer = self.loop.call_later(
                min(left, HEADER_TIMEOUT_SECONDS, BODY_TIMEOUT_SECONDS), self._check_deadline
            )
        elif left <= 0 and not self._is_over:
            self.transport.close()


def _names_one_host(target: bytes, hosts: list[bytes]) -> bool:
    return len(hosts) == 1 and bool(HOST.fullmatch(hosts[0])) and _target_matches_host(target, hosts[0])


def _target_matches_host(target: bytes, host: bytes) -> bool:
    """Whether a target in absolute form names this host (RFC 9112, §3.2.2); all others name none."""
    if target.startswith((b"/", b"*")):
        return True
    return urlsplit(target).netloc.lower().removesuffix(b":80") == host.lower().removesuffix(b":80")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def bad_request() -> BadRequest:
    return BadRequest("bad_request", "This is not HTTP/1.1 as of RFC 9112.")


def url_too_long() -> UrlTooLong:
    return UrlTooLong("url_too_long", f"A URL has at most {MAX_URL_BYTES} bytes.")


def headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(
        "headers_too_large",
        f"A request has at most {MAX_HEADERS} headers, of {MAX_HEADER_BYTES} bytes in all.",
    )
