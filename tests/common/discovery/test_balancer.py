"""Which instance gets the next request."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from common.discovery import balancer as module
from common.discovery.balancer import FAILURES, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Balancer
from common.discovery.directory import Directory
from common.discovery.models import Instance, Status, Table
from tests.instances import instance


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _balancer(clock: Clock, *instances: Instance) -> Balancer:
    directory = Directory(None)
    directory.accept(Table(epoch="", version=1, services={"users": instances}), now=0)
    return Balancer(directory, clock)


def _chosen(balancer: Balancer, times: int = 200) -> Counter[int]:
    return Counter(instance.port for _ in range(times) if (instance := balancer.choose("users")))


def test_all_get_their_part(clock: Clock) -> None:
    chosen = _chosen(_balancer(clock, *map(instance, (1, 2, 3))))

    assert min(chosen[port] for port in (1, 2, 3)) > 30


def test_a_busy_one_gets_less(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    with balancer.busy(instance(1)):
        assert set(_chosen(balancer)) == {2}


def test_one_that_refused_is_passed_over_for_a_while(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    balancer.failed(instance(1), connected=False)
    at_once = set(_chosen(balancer))
    clock.now += FIRST_PAUSE_SECONDS

    assert (at_once, set(_chosen(balancer))) == ({2}, {1, 2})


def test_the_next_pause_is_longer(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(2):
        balancer.failed(instance(1), connected=False)
        clock.now += FIRST_PAUSE_SECONDS

    assert set(_chosen(balancer)) == {2}


def test_all_that_fail_together_are_one_failure(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(50):
        balancer.failed(instance(1), connected=False)
    clock.now += FIRST_PAUSE_SECONDS

    assert set(_chosen(balancer)) == {1, 2}


def test_a_pause_has_an_end_however_often_it_failed(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(2000):
        balancer.failed(instance(1), connected=False)
        clock.now += LONGEST_PAUSE_SECONDS

    assert set(_chosen(balancer)) == {1, 2}


def test_one_broken_answer_is_forgiven_and_several_in_a_row_are_not(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for _ in range(FAILURES - 1):
        balancer.failed(instance(1), connected=True)
    forgiven = set(_chosen(balancer))
    balancer.failed(instance(1), connected=True)

    assert (forgiven, set(_chosen(balancer))) == ({1, 2}, {2})


def test_a_success_is_a_new_beginning(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    balancer.failed(instance(1), connected=False)
    balancer.succeeded(instance(1))

    assert set(_chosen(balancer)) == {1, 2}


def test_when_all_have_failed_all_are_used(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    for port in (1, 2):
        balancer.failed(instance(port), connected=False)

    assert set(_chosen(balancer)) == {1, 2}


def test_one_that_was_tried_is_not_chosen_again(clock: Clock) -> None:
    balancer = _balancer(clock, instance(1))

    assert balancer.choose("users", tried=[instance(1)]) is None


def test_one_that_was_tried_and_then_heard_of_again_is_still_the_same(clock: Clock) -> None:
    tried = instance(1)
    balancer = _balancer(clock, tried.model_copy(update={"last_heartbeat": datetime.now(UTC)}))

    assert balancer.choose("users", tried=[tried]) is None


def test_the_last_one_left_is_used_although_it_failed(clock: Clock) -> None:
    balancer = _balancer(clock, *map(instance, (1, 2)))
    balancer.failed(instance(1), connected=False)

    assert balancer.choose("users", tried=[instance(2)]) == instance(1)


def test_what_is_known_of_instances_does_not_grow_for_ever(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_ABOVE", 10)
    balancer = _balancer(clock, instance(1))
    with balancer.busy(instance(1)):
        for port in range(2, 100):
            balancer.succeeded(instance(port))

    assert len(balancer._records) <= 11


def test_one_that_drains_is_never_chosen(clock: Clock) -> None:
    assert _balancer(clock, instance(1, status=Status.DRAINING)).choose("users") is None
