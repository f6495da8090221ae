"""Spans: what a request spends its time on, in each process that it passes.

Each span is a child of what `context.traceparent` says, which says the span
while it lasts. A process that exports no spans loads nothing for them, and
the functions here return None: docs/decisions/0030-traces.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from common.telemetry.context import Tracing, traceparent
from common.telemetry.sampling import is_sampled

Label = str | int
Labels = tuple[Label, ...]
Kind = Literal["SERVER", "CLIENT", "PRODUCER", "CONSUMER", "INTERNAL"]
Attributes = Mapping[str, Label]


# Of an attribute: no path of this API is as long, and a queue of spans holds thousands.
MAX_PATH = 256


class Span(Protocol):
    """A span that has begun."""

    def end(self, error: str = "", name: str = "", attributes: Attributes | None = None) -> None:
        """End it. A `name` replaces the one that it began with; an `error` is the type of what went wrong."""
        ...


class Tracer(Protocol):
    """What makes spans, and exports them."""

    def child(self, kind: Kind, name: str, attributes: Attributes) -> Span | None: ...
    def request(self, received: str, trusts_sampling: bool) -> Span | None: ...
    def process(self, name: str, attributes: Attributes, causes: Sequence[str]) -> Span | None: ...


class _Current:
    tracer: Tracer | None = None


def use(tracer: Tracer | None) -> None:
    """Make spans with this tracer from now on, or make none."""
    _Current.tracer, Tracing.is_on = tracer, tracer is not None


def child(kind: Kind, name: str, attributes: Callable[[], Attributes]) -> Span | None:
    """A span in the trace that goes on here, if that is sampled; a job that is put may begin a trace."""
    parent = traceparent.get()
    if _Current.tracer is None or not (is_sampled(parent) or (kind == "PRODUCER" and not parent)):
        return None
    return _Current.tracer.child(kind, name, attributes())


def request(received: str, trusts_sampling: bool) -> Span | None:
    """The span of a request, in the trace that came with it, if any did.

    Unless it `trusts_sampling`, whether that is sampled is decided here.
    """
    return _Current.tracer.request(received, trusts_sampling) if _Current.tracer else None


@dataclass(frozen=True)
class Traced:
    """As which span something appears that is timed: its `name` has the values of labels, by position."""

    kind: Kind
    name: str
    attributes: Attributes = field(default_factory=dict)

    def begin(self, names: Sequence[str], labels: Labels, causes: Iterable[str]) -> Span | None:
        """The span of something with these labels, if its trace is sampled.

        What is processed has `causes`, the traces of its jobs: of a single job, the span is in its
        trace; of several, in one of its own, with a link to each.
        """

        def attributes() -> Attributes:
            # What has no value yet is the error, the last one.
            return {**dict(zip(names, labels, strict=False)), **self.attributes}

        name = self.name.format(*labels)
        if self.kind == "CONSUMER" and _Current.tracer:
            return _Current.tracer.process(name, attributes(), list(causes))
        return child(self.kind, name, attributes)
