"""What this process has recorded, read as Prometheus reads it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from common.telemetry import metrics


def value(name: str, /, **labels: str) -> float:
    """The sum of the series with these labels; 0 if there is none."""
    # Only of instruments that may have it: a process of tests has thousands of series.
    text = "".join(one.text() for one in metrics.INSTRUMENTS if name.startswith(one.name))
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


@contextmanager
def growth(name: str, /, **labels: str) -> Iterator[Callable[[], float]]:
    """By how much the series have grown since the `with` began: other tests of the process count, too."""
    before = value(name, **labels)
    yield lambda: value(name, **labels) - before
