"""The model that says what more instances would answer."""

import pytest

from bench import queueing
from bench.queueing import Suite

# One request of one kind, in microseconds.
SHARES = {"home": 1.0}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queueing, "SECONDS", 20.0)


def _rate(instances: int, **demands: float) -> float:
    return Suite(instances, {"home": demands}, SHARES).rate()


@pytest.mark.parametrize("instances", [1, 3])
def test_as_much_is_answered_as_the_busiest_process_can_do(instances: int) -> None:
    rate = _rate(instances, gateway=4_000, timelines=10_000, postgres=2_000)

    assert rate == pytest.approx(100 * instances, rel=0.05)


def test_a_store_that_all_share_limits_them_together() -> None:
    assert _rate(3, timelines=10_000, redis=8_000) == pytest.approx(125, rel=0.05)


def test_postgresql_works_on_several_requests_at_once() -> None:
    assert _rate(3, timelines=10_000, postgres=12_000) == pytest.approx(300, rel=0.06)
