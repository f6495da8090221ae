"""Sparing others what one has waited for in vain."""

import pytest

from common.circuit_breaker import OPEN_SECONDS, CircuitBreaker, CircuitOpen
from tests.clock import Clock
from tests.scrape import growth, value


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("It", clock)


def test_it_is_closed_at_first(breaker: CircuitBreaker) -> None:
    breaker.raise_if_open()


def test_whoever_comes_right_after_it_tripped_is_refused(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.trip()
    clock.now += OPEN_SECONDS - 0.01

    with pytest.raises(CircuitOpen, match="It hung"):
        breaker.raise_if_open()


def test_after_a_moment_it_is_closed_again(breaker: CircuitBreaker, clock: Clock) -> None:
    breaker.trip()
    clock.now += OPEN_SECONDS

    breaker.raise_if_open()


def test_it_is_measured_how_often_it_opens_and_whether_it_is_open() -> None:
    breaker = CircuitBreaker("a shelf")

    with growth("microblog_circuit_breaker_trips_total", name="a shelf") as trips:
        closed = value("microblog_circuit_breaker_open", name="a shelf")
        breaker.trip()

        assert (closed, value("microblog_circuit_breaker_open", name="a shelf"), trips()) == (0, 1, 1)
