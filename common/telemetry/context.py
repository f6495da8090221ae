"""One request id and one trace through every service, job and log line."""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from random import getrandbits

request_id: ContextVar[str] = ContextVar("request_id", default="-")
traceparent: ContextVar[str] = ContextVar("traceparent", default="")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def start(request: str | None = None, trace: str | None = None) -> None:
    """Begin work under this request id and trace, or under new ones."""
    request_id.set(request or f"{getrandbits(128):032x}")
    traceparent.set(trace or f"00-{getrandbits(128):032x}-{getrandbits(64):016x}-01")


def outgoing_headers() -> dict[str, str]:
    """The headers that carry the id and the trace (W3C Trace Context) to another service."""
    return {"X-Request-ID": request_id.get(), "traceparent": traceparent.get()}


def outgoing_raw_headers() -> list[tuple[bytes, bytes]]:
    """The same as ASGI has headers, for the response to the client."""
    return [(b"x-request-id", request_id.get().encode()), (b"traceparent", traceparent.get().encode())]


def start_from(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Begin work under the id and the trace in these headers, as far as they are good."""
    request = trace = None
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request = value.decode()
        elif name == b"traceparent" and TRACEPARENT.fullmatch(value):
            trace = value.decode()
    start(request, trace)
