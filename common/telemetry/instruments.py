"""Kinds of instruments, with bounded labels: quick to record, quick to scrape.

A metric appears in a process when that process first records it. Labels are
given by position, in the order in which the instrument names them. Their
names are OpenTelemetry's, of attributes; Prometheus has an underscore for each
dot. Threads may share an instrument. Why these are not prometheus-client's:
docs/decisions/0023-metrics.md.
"""

import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from types import TracebackType
from typing import ClassVar, Generic, TypeVar
from weakref import WeakMethod

from common.telemetry.context import Tracing
from common.telemetry.traces import Label, Labels, Traced

# OpenTelemetry's word for a value that is not one of the known ones.
OTHER = "_OTHER"
# Of one metric. Whatever comes in requests makes no more than twice as many: see `_bounded`.
MAX_SERIES = 300

Readings = Iterable[tuple[Labels, float]]


class Switch:
    """Whether this process records anything."""

    is_on = True


class Instrument(ABC):
    """A metric, and how it is written in Prometheus' text format."""

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = tuple(label.replace(".", "_") for label in labels)
        self.attributes = labels

    @abstractmethod
    def samples(self) -> Iterator[str]:
        """A line for each value."""

    def text(self) -> str:
        """All of it; nothing as long as nothing is recorded."""
        lines = "".join(self.samples())
        return lines and f"# HELP {self.name} {self.meaning}\n# TYPE {self.name} {self.kind}\n{lines}"

    def _pairs(self, labels: Labels) -> str:
        return ",".join(
            f'{name}="{_escape(str(value))}"' for name, value in zip(self.labels, labels, strict=True)
        )


class _Value:
    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = Lock()
        self.value = 0.0

    def add(self, difference: float) -> None:
        with self._lock:
            self.value += difference


class _Distribution:
    __slots__ = ("_lock", "bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._lock = Lock()
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        with self._lock:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.sum += value


Series = TypeVar("Series", _Value, _Distribution)


class _SeriesByLabels(dict[Labels, Series], Generic[Series]):
    """Series, each added when it is first asked for."""

    def __init__(self, add: Callable[[Labels], Series]) -> None:
        self._add: Callable[[Labels], Series] = add

    def __missing__(self, labels: Labels) -> Series:
        return self._add(labels)


class _Recorded(Instrument, Generic[Series]):
    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        super().__init__(name, meaning, *labels)
        self._series: _SeriesByLabels[Series] = _SeriesByLabels(self._add)
        self._lock = Lock()

    def _add(self, labels: Labels) -> Series:
        with self._lock:
            return self._series.setdefault(self._bounded(labels), self._make())

    def _bounded(self, labels: Labels) -> Labels:
        """These labels or, when there are too many series, only the last one, such as the status."""
        if labels in self._series or len(self._series) < MAX_SERIES:
            return labels
        coarse = (*[OTHER] * (len(labels) - 1), *labels[-1:])
        if coarse in self._series or len(self._series) < 2 * MAX_SERIES - 1:
            return coarse
        return (OTHER,) * len(labels)

    def _all(self) -> list[tuple[str, Series]]:
        with self._lock:
            series = list(self._series.items())
        return [(self._pairs(labels), one) for labels, one in series]

    @abstractmethod
    def _make(self) -> Series: ...


class _Single(_Recorded[_Value]):
    def samples(self) -> Iterator[str]:
        for pairs, one in self._all():
            yield _line(self.name, pairs, one.value)

    def _make(self) -> _Value:
        return _Value()


class Counter(_Single):
    """Counts what happens."""

    kind = "counter"

    def add(self, *labels: Label, times: int = 1) -> None:
        """Count one more, or so many."""
        if Switch.is_on:
            self._series[labels].add(times)


class Gauge(_Single):
    """What is the case now, told whenever it changes."""

    kind = "gauge"

    def set(self, value: float, *labels: Label) -> None:
        if Switch.is_on:
            self._series[labels].value = value

    def add(self, difference: float, *labels: Label) -> None:
        if Switch.is_on:
            self._series[labels].add(difference)


class Histogram(_Recorded[_Distribution]):
    """How values are distributed: how many are up to each bound.

    What it times is a span, too, if it says as which one.
    """

    kind = "histogram"

    def __init__(
        self, name: str, meaning: str, *labels: str, bounds: Sequence[float], span: Traced | None = None
    ) -> None:
        super().__init__(name, meaning, *labels)
        self._bounds = bounds
        self._span = span

    def record(self, value: float, *labels: Label) -> None:
        if Switch.is_on:
            self._series[labels].add(value)

    def time(
        self,
        *labels: Label,
        errors: tuple[type[BaseException], ...] = (Exception,),
        causes: Iterable[str] = (),
        is_traced: bool = True,
    ) -> "Timer":
        """Record how long a `with` takes, in seconds; the last label is the error, if it is one of these.

        `causes` are the traces of what is processed.
        """
        return Timer(self, labels, errors, causes, self._span if is_traced else None)

    def samples(self) -> Iterator[str]:
        for pairs, one in self._all():
            before = f"{pairs}," if pairs else ""
            total = 0
            for bound, count in zip((*one.bounds, "+Inf"), one.counts, strict=True):
                total += count
                yield f'{self.name}_bucket{{{before}le="{bound}"}} {total}\n'
            yield _line(f"{self.name}_sum", pairs, one.sum)
            yield _line(f"{self.name}_count", pairs, total)

    def _make(self) -> _Distribution:
        return _Distribution(self._bounds)


class Timer:
    """Times one operation, which is a span where it is traced."""

    __slots__ = ("_began", "_causes", "_errors", "_histogram", "_labels", "_span", "_traced")

    def __init__(
        self,
        histogram: Histogram,
        labels: Labels,
        errors: tuple[type[BaseException], ...],
        causes: Iterable[str],
        traced: Traced | None,
    ) -> None:
        self._histogram = histogram
        self._labels = labels
        self._errors = errors
        self._causes = causes
        self._traced = traced

    def __enter__(self) -> None:
        self._span = None
        if self._traced and Tracing.is_on:
            self._span = self._traced.begin(self._histogram.attributes, self._labels, self._causes)
        self._began = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        error = kind.__name__ if kind and issubclass(kind, self._errors) else ""
        self._histogram.record(time.perf_counter() - self._began, *self._labels, error)
        if self._span:
            self._span.end(error)


class Observed(Instrument):
    """A gauge that is read when it is scraped: the sum of what each object says of itself then."""

    kind = "gauge"

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        super().__init__(name, meaning, *labels)
        self._sources: list[WeakMethod[Callable[[], Readings]]] = []

    def read_from(self, method: Callable[[], Readings]) -> None:
        """Call this bound method, for as long as its object lives."""
        self._sources = [source for source in self._sources if source()] + [WeakMethod(method)]

    def samples(self) -> Iterator[str]:
        sums: dict[Labels, float] = {}
        for labels, value in self._read():
            known = labels if labels in sums or len(sums) < MAX_SERIES else (OTHER,) * len(labels)
            sums[known] = sums.get(known, 0) + value
        for labels, value in sums.items():
            yield _line(self.name, self._pairs(labels), value)

    def _read(self) -> Iterator[tuple[Labels, float]]:
        for source in self._sources if Switch.is_on else ():
            if method := source():
                yield from method()


def _line(name: str, pairs: str, value: float) -> str:
    value = float(value)  # a bool is a number, too, but is written as one only so
    return f"{name}{{{pairs}}} {value}\n" if pairs else f"{name} {value}\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
