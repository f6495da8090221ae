"""Several registries, which know nothing of each other: one that fails costs nothing."""

import signal
from datetime import timedelta

import pytest

from common.discovery.directory import Directory
from common.discovery.models import LEASE_SECONDS, Instance, Status
from tests.common.discovery.conftest import Follow, Registry, Service, Start, ports, register
from tests.instances import NOW, instance, snapshot_of
from tests.polling import eventually

TWO = "http://one.test:8006,http://two.test:8006"


def _heard(one: Instance, seconds: int, **changes: object) -> Instance:
    """The instance as a registry lists it that heard from it so many seconds later."""
    return one.model_copy(update={"last_heartbeat": NOW + timedelta(seconds=seconds), **changes})


def test_an_instance_that_one_registry_lacks_is_found_by_the_other() -> None:
    directory = Directory(TWO)
    directory.update(snapshot_of(instance(5100)), 0, registry=0)
    directory.update(snapshot_of(instance(5110)), 0, registry=1)

    assert ports(directory) == [5100, 5110]


def test_an_instance_that_both_list_is_there_once_as_it_was_heard_of_last() -> None:
    directory = Directory(TWO)
    draining = _heard(instance(5100), 1, status=Status.DRAINING)
    directory.update(snapshot_of(draining), 0, registry=0)
    directory.update(snapshot_of(instance(5100)), 0, registry=1)

    assert directory.instances("users") == (draining,)


def test_an_instance_that_one_registry_suspects_is_up_as_long_as_the_other_hears_from_it() -> None:
    directory = Directory(TWO)
    up = _heard(instance(5100), -3600)  # since then, the other has told nothing new
    directory.update(snapshot_of(up), 0, registry=0)
    directory.update(snapshot_of(_heard(up, 3600, status=Status.SUSPECT)), 0, registry=1)

    assert directory.instances("users") == (up,)


def test_a_registry_that_comes_back_empty_hides_nothing() -> None:
    directory = Directory(TWO)
    for registry in (0, 1):
        directory.update(snapshot_of(instance(5100)), 0, registry)
    directory.update(snapshot_of().model_copy(update={"epoch": "new"}), LEASE_SECONDS + 1, registry=0)
    directory.update(snapshot_of().model_copy(update={"epoch": "new"}), 2 * LEASE_SECONDS + 2, registry=0)

    assert ports(directory) == [5100]


def test_an_address_belongs_to_the_service_that_was_heard_there_last() -> None:
    directory = Directory(TWO)
    directory.update(snapshot_of(instance(1, "users")), 0, registry=0)
    directory.update(snapshot_of(_heard(instance(1, "polls"), 1)), 0, registry=1)

    assert (len(directory.instances("polls")), directory.instances("users")) == (1, ())


@pytest.fixture
def two(start: Start) -> tuple[Registry, Registry]:
    registries = Registry(start), Registry(start)
    for registry in registries:
        registry.start()
    return registries


def _url(two: tuple[Registry, Registry]) -> str:
    return ",".join(registry.url for registry in two)


def _things(directory: Directory) -> list[Status]:
    return [one.status for one in directory.instances("things")]


@pytest.mark.kills
def test_each_registry_may_be_killed_and_started_again_and_the_service_stays_listed(
    two: tuple[Registry, Registry], follow: Follow
) -> None:
    directory = follow(_url(two))
    with Service(_url(two)):
        for registry in two:
            eventually(lambda registry=registry: _things(follow(registry.url)) == [Status.UP])
        for registry in two:
            registry.kill()
            assert _things(directory) == [Status.UP]
            registry.start()
            eventually(lambda registry=registry: _things(follow(registry.url)) == [Status.UP])

        assert _things(directory) == [Status.UP]
    eventually(lambda: not _things(directory))


@pytest.mark.kills
def test_a_paused_registry_hides_no_instance_that_comes(
    two: tuple[Registry, Registry], follow: Follow
) -> None:
    directory = follow(_url(two))
    paused, serving = two
    paused.process.send_signal(signal.SIGSTOP)
    register(serving.url, 5110)

    assert eventually(lambda: ports(directory)) == [5110]
