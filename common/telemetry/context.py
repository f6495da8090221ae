"""One request id and one trace through every service, job and log line."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from random import getrandbits

request_id: ContextVar[str] = ContextVar("request_id", default="-")
# Inside of a span, it names that span.
traceparent: ContextVar[str] = ContextVar("traceparent", default="")
# Of the span in which a worker handles jobs, whichever requests these are from.
process_span: ContextVar[str] = ContextVar("process_span", default="")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Tracing:
    """Whether this process exports spans."""

    is_on = False


def start(request: str | None = None, trace: str | None = None) -> None:
    """Begin work under this request id and trace, or under new ones."""
    request_id.set(request or f"{getrandbits(128):032x}")
    traceparent.set(trace or _new_trace())


def start_unprompted() -> None:
    """Begin work that no request has caused: a job that it puts begins the trace."""
    start()
    if Tracing.is_on:
        traceparent.set("")


def resume(request: str, trace: str) -> None:
    """Go on with the work of a request: in the span that handles its job, if that is sampled."""
    if Tracing.is_on and trace:
        trace = f"{trace[:-2]}00"
    start(request, process_span.get() or trace)


@contextmanager
def under(request: str, trace: str) -> Iterator[None]:
    """Do something under this request id and trace, and then go on as before."""
    before = request_id.get(), traceparent.get()
    start(request, trace)
    try:
        yield
    finally:
        request_id.set(before[0])
        traceparent.set(before[1])


def outgoing_headers() -> dict[str, str]:
    """The headers that carry the id and the trace (W3C Trace Context) to another service."""
    # What no request has caused is not to begin a trace elsewhere.
    return {"X-Request-ID": request_id.get(), "traceparent": traceparent.get() or _new_trace()}


def outgoing_raw_headers() -> list[tuple[bytes, bytes]]:
    """The same as ASGI has headers, for the response to the client."""
    return [(b"x-request-id", request_id.get().encode()), (b"traceparent", traceparent.get().encode())]


def start_from(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Begin work under the id and the trace in these headers, as far as they are good; that trace, or ""."""
    request = trace = None
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request = value.decode()
        elif name == b"traceparent" and TRACEPARENT.fullmatch(value):
            trace = value.decode()
    start(request, trace)
    return trace or ""


def _new_trace() -> str:
    # Where spans are exported, a trace is not sampled until a span begins it.
    flags = "00" if Tracing.is_on else "01"
    return f"00-{getrandbits(128):032x}-{getrandbits(64):016x}-{flags}"
