"""Spans by OpenTelemetry's SDK, exported by OTLP over HTTP.

The SDK reads its own variables (OTEL_…). A collector that is away, slow or
wrong costs spans, and no more: they wait in a queue of fixed size.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Semaphore, Thread

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace.propagation import set_span_in_context

from common.telemetry import context, metrics, traces
from common.telemetry.logging import RepeatedWarning
from common.telemetry.sampling import Sampling, is_sampled
from common.telemetry.traces import Attributes, Kind

logger = logging.getLogger(__name__)

# OpenTelemetry's default.
MAX_QUEUE_SIZE = 2048
# For what is still in the queue when the process ends, which it has to within five seconds in all.
SHUTDOWN_SECONDS = 0.5
MAX_REPLY_BYTES = 64 * 1024


@contextmanager
def exporting(process: Mapping[str, str], sampling: Sampling, variables: Mapping[str, str]) -> Iterator[None]:
    """Export spans of a process with these attributes meanwhile; `variables` are those of the SDK."""
    try:
        tracer = OtlpTracer(process, sampling, int(variables.get("OTEL_BSP_MAX_QUEUE_SIZE", MAX_QUEUE_SIZE)))
    except ValueError as exc:
        logger.error("no spans are exported, as a variable OTEL_… is wrong: %s", exc)  # noqa: TRY400  no bug
        tracer = None
    traces.use(tracer)
    try:
        yield
    finally:
        traces.use(None)
        if tracer:
            tracer.close()


class OtlpTracer:
    """Makes spans. Threads may share it."""

    def __init__(self, process: Mapping[str, str], sampling: Sampling, max_queue_size: int) -> None:
        """Raises ValueError for a variable of the SDK that is wrong."""
        resource = Resource.create({**process, **OTELResourceDetector().detect().attributes})
        provider = TracerProvider(
            ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=_SampledIds(sampling)
        )
        self._exporter = _BoundedExporter(max_queue_size)
        provider.add_span_processor(self._exporter)
        self._tracer = provider.get_tracer("microblog")
        self._sampling = sampling

    def close(self) -> None:
        """Export what is in the queue, if the collector takes it at once."""
        # In a thread, as the SDK would wait, and try again.
        closing = Thread(target=self._exporter.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(SHUTDOWN_SECONDS)

    def child(self, kind: Kind, name: str, attributes: Attributes) -> "_Span | None":
        parent = context.traceparent.get()
        if not (parent or self._sampling.of_new()):
            return None
        return _Span(self._start(kind, name, attributes, parent, is_remote=False), parent)

    def request(self, received: str, trusts_sampling: bool) -> "_Span | None":
        if received:
            chosen = self._sampling.of_child(received, trusts_sampling)
            received = f"{received[:-2]}{chosen:02x}"
            context.traceparent.set(received)
        else:
            chosen = self._sampling.of_new()
        return _Span(self._start("SERVER", "HTTP", {}, received)) if chosen else None

    def process(self, name: str, attributes: Attributes, causes: Sequence[str]) -> "_Span | None":
        context.process_span.set("")
        known = [cause for cause in causes if cause]
        if not self._sampling.of_batch(known):
            return None
        if len(causes) > 1:
            attributes = {**attributes, "messaging.batch.message_count": len(causes)}
        parent = known[0] if len(known) == len(causes) == 1 else ""
        links = [Link(_position(cause)) for cause in known]
        span = _Span(self._start("CONSUMER", name, attributes, parent, links))
        context.process_span.set(context.traceparent.get())
        return span

    def _start(
        self,
        kind: Kind,
        name: str,
        attributes: Attributes,
        parent: str,
        links: Sequence[Link] = (),
        is_remote: bool = True,
    ) -> SdkSpan:
        within = Context()
        if parent:
            within = set_span_in_context(NonRecordingSpan(_position(parent, is_remote)), within)
        return self._tracer.start_span(name, within, SpanKind[kind], attributes, links)


class _SampledIds(RandomIdGenerator):
    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def generate_trace_id(self) -> int:
        return self._sampling.new_id()

    def is_trace_id_random(self) -> bool:
        return False


class _Span:
    """A span that has begun: from now on, `context.traceparent` says it."""

    __slots__ = ("_before", "_span")

    def __init__(self, span: SdkSpan, before: str | None = None) -> None:
        """`before` is what it says afterwards; without one, the span goes on to be said."""
        self._span = span
        self._before = before
        at = span.get_span_context()
        context.traceparent.set(f"00-{at.trace_id:032x}-{at.span_id:016x}-01")

    def end(self, error: str = "", name: str = "", attributes: Attributes | None = None) -> None:
        if self._before is not None:
            context.traceparent.set(self._before)
        if name:
            self._span.update_name(name)
        if attributes:
            self._span.set_attributes(attributes)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class _BoundedExporter(BatchSpanProcessor):
    """Exports spans in the background.

    It holds no more spans than its queue has room for, those under way among
    them. Those that get lost are counted, with a warning once a minute.
    """

    def __init__(self, max_queue_size: int) -> None:
        self._room = Semaphore(max_queue_size)
        self._warn = RepeatedWarning(logger)
        super().__init__(_CountedExporter(self._room, self._warn), max_queue_size)

    def on_end(self, span: ReadableSpan) -> None:
        if self._room.acquire(blocking=False):
            super().on_end(span)
        else:
            metrics.spans.add("dropped")
            self._warn(LOST, "more come than it takes")


class _CountedExporter(SpanExporter):
    """Sends spans to the collector, and counts what becomes of them."""

    def __init__(self, room: Semaphore, warn: RepeatedWarning) -> None:
        self._room = room
        self._warn = warn
        # It shows a malformed header, which may be a key.
        logging.getLogger("opentelemetry.util.re").addFilter(_without_value)
        self._otlp = OTLPSpanExporter(session=_session())
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(REASON)
        # It warns of each response with strange headers.
        logging.getLogger("urllib3").setLevel(logging.ERROR)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._otlp.export(spans)
        finally:
            self._room.release(len(spans))
        is_taken = result is SpanExportResult.SUCCESS
        metrics.spans.add("exported" if is_taken else "lost", times=len(spans))
        if not is_taken:
            self._warn(LOST, REASON.text)
        return result

    def shutdown(self) -> None:
        self._otlp.shutdown()  # type: ignore[no-untyped-call]  # the SDK's own


class _Reason(logging.Filter):
    """Keeps the last line of the SDK's exporter, which has one for each attempt, out of the log."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()
        return False


def _without_value(record: logging.LogRecord) -> bool:
    record.msg, record.args = "a variable OTEL_…_HEADERS is not name=value,name=value", ()
    return True


LOST = "spans get lost, as the collector does not take them"
REASON = _Reason()


def _session() -> requests.Session:
    session = requests.Session()
    session.stream = True
    session.hooks["response"].append(_read_reply)
    return session


def _read_reply(response: requests.Response, **_: object) -> None:
    """Read no more than a collector says, however much comes."""
    with response:
        response.raw.read(MAX_REPLY_BYTES)


def _position(trace: str, is_remote: bool = True) -> SpanContext:
    """Where in its trace this `traceparent` is."""
    trace_id, span_id = int(trace[3:35], 16), int(trace[36:52], 16)
    return SpanContext(trace_id, span_id, is_remote, TraceFlags(is_sampled(trace)))
