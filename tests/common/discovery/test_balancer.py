"""Which instance gets the next request."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from common.discovery import balancer as module
from common.discovery.balancer import (
    BASE_EJECTION_SECONDS,
    CONSECUTIVE_FAILURES,
    MAX_EJECTION_SECONDS,
    Attempt,
    Balancer,
)
from common.discovery.directory import Directory
from common.discovery.models import Instance, Snapshot, Status
from tests.clock import Clock
from tests.instances import instance


def _balancer(clock: Clock, *instances: Instance) -> Balancer:
    directory = Directory(None)
    directory.update(Snapshot(epoch="", version=1, services={"users": instances}), now=0)
    return Balancer(directory, clock)


def _chosen(balancer: Balancer, times: int = 200) -> Counter[int]:
    attempts = (balancer.attempt("users") for _ in range(times))
    return Counter(attempt.instance.port for attempt in attempts if attempt)


def _attempt(balancer: Balancer, port: int) -> Attempt:
    """An attempt at the instance on this port."""
    return next(one for one in iter(lambda: balancer.attempt("users"), None) if one.instance.port == port)


def _fail(balancer: Balancer, port: int, connected: bool) -> None:
    others = [instance(other) for other in (1, 2) if other != port]
    attempt = balancer.attempt("users", tried=others)
    assert attempt
    with attempt:
        attempt.fail(connected)


def test_all_get_their_part(clock: Clock) -> None:
    chosen = _chosen(_balancer(clock, *map(instance, (1, 2, 3))))

    assert min(chosen[port] for port in (1, 2, 3)) > 30


def test_a_busy_one_gets_less(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    with _attempt(balancer, 1):
        assert set(_chosen(balancer)) == {2}


def test_one_that_refused_is_passed_over_for_a_while(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    _fail(balancer, 1, connected=False)
    at_once = set(_chosen(balancer))
    clock.now += BASE_EJECTION_SECONDS

    assert (at_once, set(_chosen(balancer))) == ({2}, {1, 2})


def test_the_next_pause_is_longer(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(2):
        _fail(balancer, 1, connected=False)
        clock.now += BASE_EJECTION_SECONDS

    assert set(_chosen(balancer)) == {2}


def test_all_that_fail_together_are_one_failure(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(50):
        _fail(balancer, 1, connected=False)
    clock.now += BASE_EJECTION_SECONDS

    assert set(_chosen(balancer)) == {1, 2}


def test_a_pause_has_an_end_however_often_it_failed(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(2000):
        _fail(balancer, 1, connected=False)
        clock.now += MAX_EJECTION_SECONDS

    assert set(_chosen(balancer)) == {1, 2}


def test_one_broken_answer_is_forgiven_and_several_in_a_row_are_not(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(CONSECUTIVE_FAILURES - 1):
        _fail(balancer, 1, connected=True)
    forgiven = set(_chosen(balancer))
    _fail(balancer, 1, connected=True)

    assert (forgiven, set(_chosen(balancer))) == ({1, 2}, {2})


def test_a_success_is_a_new_beginning(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    _fail(balancer, 1, connected=False)
    with balancer.attempt("users", tried=[instance(2)]):
        pass

    assert set(_chosen(balancer)) == {1, 2}


def test_when_all_have_failed_all_are_used(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for port in (1, 2):
        _fail(balancer, port, connected=False)

    assert set(_chosen(balancer)) == {1, 2}


def test_one_that_was_tried_is_not_chosen_again(clock: Clock) -> None:
    balancer = _balancer(clock, instance(1))

    assert balancer.attempt("users", tried=[instance(1)]) is None


def test_one_that_was_tried_and_then_heard_of_again_is_still_the_same(clock: Clock) -> None:
    tried = instance(1)
    balancer = _balancer(clock, tried.model_copy(update={"last_heartbeat": datetime.now(UTC)}))

    assert balancer.attempt("users", tried=[tried]) is None


def test_the_last_one_left_is_used_although_it_failed(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    _fail(balancer, 1, connected=False)

    assert balancer.attempt("users", tried=[instance(2)]).instance == instance(1)


def test_what_is_known_of_instances_does_not_grow_for_ever(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TRACKED_INSTANCES", 10)
    balancer = _balancer(clock, *map(instance, range(1, 100)))
    with _attempt(balancer, 1):
        for _ in range(1000):
            balancer.attempt("users")

    assert len(balancer._stats) <= 12


def test_one_that_drains_is_never_chosen(clock: Clock) -> None:
    assert _balancer(clock, instance(1, status=Status.DRAINING)).attempt("users") is None


def test_an_instance_that_is_degraded_gets_requests_only_where_none_is_up() -> None:
    directory = Directory(None)
    up, degraded = instance(5100), instance(5110, status=Status.DEGRADED)
    directory.update(Snapshot(epoch="", version=1, services={"users": (degraded, up)}), now=0)
    balancer = Balancer(directory)
    ports = [attempt.instance.port for attempt in balancer.attempts("users")]

    assert ports == [5100, 5110]
