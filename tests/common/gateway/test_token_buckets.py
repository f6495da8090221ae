"""Token buckets: how many tokens there are, and when the next one comes."""

import pytest
from throttled import MemoryStore, RateLimiterType, Throttled, utils

from common.gateway import token_buckets
from common.gateway.rate_limits import quota
from common.gateway.token_buckets import TokenBuckets
from tests.clock import Clock


@pytest.fixture
def buckets(clock: Clock) -> TokenBuckets:
    """Of three tokens, with a new one every half second."""
    return TokenBuckets(quota("2/s burst 3"), clock)


def _taken(buckets: TokenBuckets, key: str, times: int) -> int:
    return sum(buckets.take(key) is None for _ in range(times))


def test_a_bucket_is_full_at_first_and_empty_after_its_burst(buckets: TokenBuckets) -> None:
    assert _taken(buckets, "alice", 10) == 3


def test_a_token_comes_back_after_its_interval_and_no_sooner(buckets: TokenBuckets, clock: Clock) -> None:
    _taken(buckets, "alice", 3)
    clock.now += 0.25
    before = _taken(buckets, "alice", 2)
    clock.now += 0.25

    assert (before, _taken(buckets, "alice", 2)) == (0, 1)


def test_a_bucket_holds_no_more_than_its_burst(buckets: TokenBuckets, clock: Clock) -> None:
    _taken(buckets, "alice", 3)
    clock.now += 3600

    assert _taken(buckets, "alice", 10) == 3


def test_an_empty_bucket_says_when_a_token_comes_and_when_it_is_full(
    buckets: TokenBuckets, clock: Clock
) -> None:
    _taken(buckets, "alice", 3)
    clock.now += 0.125
    empty = buckets.take("alice")

    assert empty is not None
    assert (empty.limit, empty.remaining) == (3, 0)
    assert (empty.retry_after, empty.reset_after) == (0.375, 1.375)


def test_the_bucket_that_was_asked_for_longest_ago_is_forgotten_first(
    buckets: TokenBuckets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_buckets, "MAX_TRACKED_CLIENTS", 2)
    _taken(buckets, "alice", 3)
    _taken(buckets, "bob", 3)
    _taken(buckets, "alice", 1)
    _taken(buckets, "carol", 3)

    assert (_taken(buckets, "alice", 3), _taken(buckets, "bob", 3)) == (0, 3)


@pytest.mark.parametrize("pause", [0.0, 0.125, 0.375, 0.5, 0.625, 4.0])
def test_the_count_is_that_of_throttled_py(
    buckets: TokenBuckets, clock: Clock, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utils, "now_mono_f", clock)
    gcra = RateLimiterType.GCRA.value
    theirs = Throttled(using=gcra, quota=quota("2/s burst 3"), store=MemoryStore())
    for _ in range(20):
        our, their = buckets.take("alice"), theirs.limit("alice")
        assert our == (their.state if their.limited else None)
        clock.now += pause
