"""Instruments: what is recorded is what a scrape shows."""

import gc
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.telemetry.instruments import (
    MAX_SERIES,
    OTHER,
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Observed,
    Readings,
    Switch,
)


def read(instrument: Instrument) -> dict[tuple[str, ...], float]:
    """The values, by the suffix of the name and the values of the labels."""
    return {
        (sample.name.removeprefix(instrument.name), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(instrument.text())
        for sample in family.samples
    }


@pytest.fixture
def switched_off() -> Iterator[None]:
    Switch.is_on = False
    yield
    Switch.is_on = True


def test_nothing_is_shown_before_something_is_recorded() -> None:
    assert Counter("things_total", "Things.").text() == ""


def test_a_counter_counts_each_of_its_labels() -> None:
    counter = Counter("things_total", "Things.", "colour")

    counter.add("red")
    counter.add("red")
    counter.add("blue")

    assert read(counter) == {("", "red"): 2, ("", "blue"): 1}


def test_a_gauge_shows_its_last_value() -> None:
    gauge = Gauge("depth", "Depth.")

    gauge.set(5)
    gauge.add(-2)

    assert read(gauge) == {("",): 3}


def test_what_is_true_is_shown_as_one() -> None:
    gauge, observed = Gauge("is_up", "Up."), Observed("is_open", "Open.")
    gauge.set(True)
    door = Pool(True)
    observed.read_from(door.read_whether)

    assert [read(one) for one in (gauge, observed)] == [{("",): 1}, {("",): 1}]


def test_a_histogram_counts_up_to_each_bound_and_with_it() -> None:
    histogram = Histogram("size", "Size.", "kind", bounds=(1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 99.0):
        histogram.record(value, "a")

    shown = read(histogram)
    assert [shown[("_bucket", "a", bound)] for bound in ("1.0", "2.0", "+Inf")] == [2, 3, 4]
    assert (shown[("_sum", "a")], shown[("_count", "a")]) == (102, 4)


def test_a_timer_tells_an_error_from_a_result() -> None:
    histogram = Histogram("seconds", "Time.", "error_type", bounds=(math.inf,))

    for error in (TimeoutError, KeyError):
        with pytest.raises(error), histogram.time(errors=(OSError,)):
            raise error

    assert read(histogram)[("_count", "TimeoutError")] == read(histogram)[("_count", "")] == 1


def test_threads_lose_no_count() -> None:
    counter = Counter("things_total", "Things.", "thread")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: [counter.add(number % 2) for _ in range(2000)], range(8)))

    assert sum(read(counter).values()) == 16_000


def test_junk_in_labels_makes_a_bounded_number_of_series() -> None:
    histogram = Histogram("seconds", "Time.", "route", "status", bounds=(1.0,))

    for number in range(3 * MAX_SERIES):
        histogram.record(0.1, f"/{number}", number)

    counts = {labels[1:]: value for labels, value in read(histogram).items() if labels[0] == "_count"}
    assert len(counts) <= 2 * MAX_SERIES
    assert sum(counts.values()) == 3 * MAX_SERIES


def test_after_too_many_series_the_last_label_is_kept() -> None:
    counter = Counter("things_total", "Things.", "route", "status")
    for number in range(MAX_SERIES):
        counter.add(f"/{number}", 200)

    counter.add("/new", 500)

    assert read(counter)[("", OTHER, "500")] == 1


def test_a_label_may_have_any_character() -> None:
    counter = Counter("things_total", "Things.", "name")

    counter.add('a "b"\\\n{é}')

    assert read(counter) == {("", 'a "b"\\\n{é}'): 1}


class Pool:
    """Something that is measured when it is asked."""

    def __init__(self, used: int) -> None:
        self.used = used

    def read(self) -> Readings:
        return [(("used",), self.used)]

    def read_whether(self) -> Readings:
        return [((), bool(self.used))]


def test_what_several_objects_say_is_added_up_while_they_live() -> None:
    observed = Observed("connections", "Connections.", "state")
    pools = [Pool(2), Pool(3)]
    for pool in pools:
        observed.read_from(pool.read)

    both = read(observed)
    pools.pop()
    del pool
    gc.collect()

    assert (both, read(observed)) == ({("", "used"): 5}, {("", "used"): 2})


@pytest.mark.usefixtures("switched_off")
def test_nothing_is_recorded_when_it_is_off() -> None:
    counter, gauge = Counter("things_total", "Things."), Gauge("depth", "Depth.")
    histogram = Histogram("seconds", "Time.", bounds=(1.0,))

    counter.add()
    gauge.set(1)
    histogram.record(1)

    assert counter.text() + gauge.text() + histogram.text() == ""
