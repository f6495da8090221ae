"""One request id and one trace through every service, job and log line."""

import json
import logging
import re
import sys
import time
from collections.abc import Iterable
from contextvars import ContextVar
from datetime import UTC, datetime
from random import getrandbits

from starlette.types import ASGIApp, Message, Receive, Scope, Send

access_log = logging.getLogger("access")

request_id: ContextVar[str] = ContextVar("request_id", default="-")
traceparent: ContextVar[str] = ContextVar("traceparent", default="")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

# In the log, as nginx has it: nobody was left to answer.
CLIENT_GONE = 499

# What machines ask every few seconds is not worth a line each, except when debugging.
MACHINES_ASK = ("/livez", "/health", "/heartbeat/", "/services")


def begin(request: str | None = None, trace: str | None = None) -> None:
    """Begin work under this request id and trace, or under new ones."""
    request_id.set(request or f"{getrandbits(128):032x}")
    traceparent.set(trace or f"00-{getrandbits(128):032x}-{getrandbits(64):016x}-01")


def outgoing() -> dict[str, str]:
    """The headers that carry the id and the trace (W3C Trace Context) to another service."""
    return {"X-Request-ID": request_id.get(), "traceparent": traceparent.get()}


def outgoing_raw() -> list[tuple[bytes, bytes]]:
    """The same as ASGI has headers: for the way on, and for the way back to whoever asked."""
    return [(b"x-request-id", request_id.get().encode()), (b"traceparent", traceparent.get().encode())]


def begin_from(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Begin work under the id and the trace in these headers, as far as they are good."""
    request = trace = None
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request = value.decode()
        elif name == b"traceparent" and TRACEPARENT.fullmatch(value):
            trace = value.decode()
    begin(request, trace)


class RequestContext:
    """ASGI middleware: accept or make the request id and the trace, return both, log the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin_from(scope["headers"])
        context = outgoing_raw()
        started = time.perf_counter()
        status = CLIENT_GONE

        async def send_with_context(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *context]
            await send(message)

        try:
            await self.app(scope, receive, send_with_context)
        except Exception:  # Starlette answers it, outside of this
            status = 500
            raise
        finally:
            _log_access(scope, status, time.perf_counter() - started)


def _log_access(scope: Scope, status: int, seconds: float) -> None:
    level = logging.DEBUG if scope["path"].startswith(MACHINES_ASK) else logging.INFO
    if access_log.isEnabledFor(level):
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
        access_log.log(level, "%s %s %d %.1f ms", scope["method"], path, status, seconds * 1000)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        # One event, one line, whatever a client has put into it.
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{at} {record.levelname:7} {record.name}: {message} [{request_id.get()}]"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """A line for machines."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "traceparent": traceparent.get(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def configure_logging(level: str, form: str | None) -> None:
    """Log to standard output: text on a terminal, JSON elsewhere, or as `form` says."""
    form = form or ("text" if sys.stdout.isatty() else "json")
    lines = logging.StreamHandler(sys.stdout)
    lines.setFormatter(TextFormatter() if form == "text" else JsonFormatter())
    # What no line of ours has need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)
    # The client libraries say at info what our own lines say already.
    for chatty in ("httpx", "httpcore", "botocore", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
