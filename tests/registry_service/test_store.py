"""Leases, on a clock that tests move."""

from collections.abc import Callable

import pytest

from common.errors import Conflict, NotFound
from common.registry import LEASE_SECONDS, Status
from registry_service import store as module
from registry_service.clock import STALL_SECONDS, LivedTime
from registry_service.store import SUSPECT_SECONDS, RegistryStore
from tests.registry_service.conftest import Clock

Register = Callable[..., str]


def _listed(store: RegistryStore) -> list[int]:
    return [instance.port for instance in store.table().services.get("users", ())]


def test_a_lease_ends_exactly_when_it_says(store: RegistryStore, register: Register, clock: Clock) -> None:
    register()
    clock.passes(LEASE_SECONDS - 0.01)
    before = _listed(store)
    clock.passes(0.01)

    assert (before, _listed(store)) == ([5100], [])


def test_a_heartbeat_renews_the_lease(store: RegistryStore, register: Register, clock: Clock) -> None:
    instance_id = register()
    clock.passes(LEASE_SECONDS - 1)
    store.beat(instance_id)
    clock.passes(LEASE_SECONDS - 1)

    assert _listed(store) == [5100]


def test_the_same_place_again_replaces_the_instance(store: RegistryStore, register: Register) -> None:
    old, new = register(), register()

    assert [instance.instance_id for instance in store.instances("users")] == [new]
    assert old != new


def test_an_old_incarnation_cannot_touch_its_successor(store: RegistryStore, register: Register) -> None:
    old, _ = register(), register()

    for verb in (store.beat, store.deregister):
        with pytest.raises(NotFound):
            verb(old)
    assert _listed(store) == [5100]


def test_a_change_of_status_is_a_change_of_the_table(store: RegistryStore, register: Register) -> None:
    instance_id = register()
    versions = [store.version()]
    for status in (Status.UP, Status.DRAINING, None):
        store.beat(instance_id, status)
        versions.append(store.version())

    assert [version - versions[0] for version in versions] == [0, 0, 1, 1]


def test_a_lease_that_ends_is_a_change_of_the_table(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    register()
    before = store.version()
    clock.passes(LEASE_SECONDS)

    assert store.version() > before


def test_one_or_two_that_fall_silent_are_gone(store: RegistryStore, register: Register, clock: Clock) -> None:
    register(5100)
    register(5110)
    clock.passes(LEASE_SECONDS)

    assert _listed(store) == []


def test_when_most_fall_silent_at_once_they_are_kept_as_suspects(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    for port in (5100, 5110, 5120, 5130):
        register(port)
    clock.passes(LEASE_SECONDS)

    assert {instance.status for instance in store.instances("users")} == {Status.SUSPECT}
    assert store.status().self_preservation is not None


def test_suspects_are_not_kept_for_ever(store: RegistryStore, register: Register, clock: Clock) -> None:
    for port in (5100, 5110, 5120):
        register(port)
    clock.passes(LEASE_SECONDS)
    store.expire()
    clock.passes(SUSPECT_SECONDS)

    assert _listed(store) == []
    assert store.status().self_preservation is None


def test_a_suspect_that_is_heard_of_is_up_again(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    ids = [register(port) for port in (5100, 5110, 5120)]
    clock.passes(LEASE_SECONDS)
    store.expire()

    assert store.beat(ids[0]).status is Status.UP


def test_a_few_of_many_are_not_suspicious(store: RegistryStore, register: Register, clock: Clock) -> None:
    ids = [register(5000 + number) for number in range(10)]
    clock.passes(LEASE_SECONDS - 1)
    for instance_id in ids[3:]:
        store.beat(instance_id)
    clock.passes(1)

    assert len(_listed(store)) == 7


def test_the_registrys_own_pause_expires_nobody() -> None:
    clock = Clock()
    store = RegistryStore(LivedTime(clock))
    store.register(module.NewInstance(service_name="users", host="127.0.0.1", port=5100))
    clock.passes(1)
    store.expire()
    clock.passes(3600)

    assert _listed(store) == [5100]


def test_time_passes_while_the_process_runs() -> None:
    clock = Clock()
    lived = LivedTime(clock)
    for _ in range(10):
        clock.passes(STALL_SECONDS / 2)
        lived()

    assert lived() == 10 * STALL_SECONDS / 2


def test_there_is_an_end_to_the_instances_of_one_service(
    store: RegistryStore, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_INSTANCES_OF_ONE", 2)
    register(1)
    register(2)
    register(2)

    with pytest.raises(Conflict):
        register(3)


def test_a_service_whose_instances_have_gone_is_empty_and_not_unknown(
    store: RegistryStore, register: Register
) -> None:
    store.deregister(register())

    assert store.instances("users") == []
    with pytest.raises(NotFound):
        store.instances("likes")
