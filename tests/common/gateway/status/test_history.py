"""Rates and quantiles of the last minute."""

import pytest

from common.gateway.status.history import MAX_SAMPLES, History, Target
from common.gateway.status.reading import Reading, Work

INFINITY = float("inf")


def reading(count: float, errors: float = 0, started_at: float = 1.0) -> Reading:
    return Reading(started_at, requests=Work(count, errors))


def history(*readings: tuple[float, Reading]) -> History:
    made = History(Target("users", "127.0.0.1:5100", "127.0.0.1", "up"), 0)
    for at, one in readings:
        made.record(at, one)
    return made


def test_one_scrape_says_nothing_of_the_last_minute() -> None:
    one = history((0, reading(5)))

    assert (one.rate(), one.error_rate(), one.quantile(0.5), one.rates()) == (None, None, None, [])


def test_a_rate_is_what_was_added_a_second() -> None:
    one = history((0, reading(5)), (2, reading(25, 2)), (4, reading(25, 4)))

    assert (one.rate(), one.error_rate(), one.rates()) == (5, 1, [10, 0])


def test_a_rate_is_of_the_last_seconds_only() -> None:
    one = history((0, reading(0)), *((at, reading(1000)) for at in range(2, 60, 2)))

    assert one.rate() == 0


def test_a_new_process_at_the_address_begins_anew() -> None:
    one = history((0, reading(100)), (2, reading(200)), (4, reading(1, started_at=2.0)))

    assert (one.rate(), one.rates()) == (None, [])


def test_no_more_than_a_minute_is_kept() -> None:
    one = history(*((2 * number, reading(number)) for number in range(1000)))

    assert len(one.rates()) == MAX_SAMPLES - 1 == 30


@pytest.mark.parametrize(
    ("share", "seconds"), [(0.25, 0.5), (0.5, 1.0), (0.75, 2.0), (1.0, 2.0)], ids=["25", "50", "75", "100"]
)
def test_a_quantile_is_on_a_line_inside_its_bucket(share: float, seconds: float) -> None:
    bounds = {1.0: 2, 2.0: 3, INFINITY: 4}
    one = history((0, reading(0)), (2, Reading(1.0, requests=Work(4, 0, bounds))))

    assert one.quantile(share) == seconds


def test_a_quantile_is_of_the_last_minute_only() -> None:
    old = Reading(1.0, requests=Work(9, 0, {1.0: 0, 2.0: 9, INFINITY: 9}))
    new = Reading(1.0, requests=Work(10, 0, {1.0: 1, 2.0: 10, INFINITY: 10}))

    assert history((0, old), (2, new)).quantile(1.0) == 1.0


def test_a_minute_without_requests_has_no_quantile() -> None:
    idle = Reading(1.0, requests=Work(9, 0, {1.0: 9, INFINITY: 9}))

    assert history((0, idle), (2, idle)).quantile(0.5) is None
