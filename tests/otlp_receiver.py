"""A collector of traces: it takes OTLP over HTTP on a socket, as Jaeger and OpenTelemetry's Collector do."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.polling import eventually

KINDS = {number: name.removeprefix("SPAN_KIND_") for name, number in Span.SpanKind.items()}
# The last ones that came; a suite under load sends many more.
MAX_SPANS = 5000


@dataclass(frozen=True)
class Seen:
    """A span as it arrived. A link, like `position`, is the ids of trace and span."""

    service: str
    kind: str
    name: str
    position: tuple[str, str]
    parent_id: str
    links: tuple[tuple[str, str], ...]
    attributes: dict[str, Any]
    is_error: bool
    resource: dict[str, Any]

    @property
    def trace_id(self) -> str:
        return self.position[0]


class Receiver:
    """What has arrived, and the answer that each export gets."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 200
        self.bodies: deque[bytes] = deque(maxlen=1000)
        self.headers: dict[str, str] = {}
        self._spans: deque[Seen] = deque(maxlen=MAX_SPANS)

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(of_process.resource.attributes)
            for scope in of_process.scope_spans:
                self._spans.extend(_seen(span, resource) for span in scope.spans)

    def spans(self, trace_id: str | None = None) -> list[Seen]:
        return [one for one in list(self._spans) if trace_id in (None, one.trace_id)]

    def wait_for(self, name: str, trace_id: str | None = None) -> Seen:
        """The first span of this name, in this trace or in any."""
        found = eventually(lambda: [one for one in self.spans(trace_id) if one.name == name])
        return found[0]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that listens on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.headers = {name.lower(): value for name, value in self.headers.items()}
            if received.status == 200 and self.path == "/v1/traces":
                received.take(body)
            self.send_response(received.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        received = Receiver(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


def _seen(span: Span, resource: dict[str, Any]) -> Seen:
    return Seen(
        service=resource["service.name"],
        kind=KINDS[span.kind],
        name=span.name,
        position=(span.trace_id.hex(), span.span_id.hex()),
        parent_id=span.parent_span_id.hex(),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        attributes=_values(span.attributes),
        is_error=span.status.code == Status.STATUS_CODE_ERROR,
        resource=resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
