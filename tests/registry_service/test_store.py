"""Leases, on a clock that tests move."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from common.discovery.models import HEARTBEAT_SECONDS, LEASE_SECONDS, Status
from common.errors import Conflict, NotFound
from registry_service import store as module
from registry_service.clock import STALL_SECONDS, StallFreeClock
from registry_service.store import SUSPECT_SECONDS, RegistryStore
from tests.clock import Clock
from tests.instances import NOW

Register = Callable[..., str]


def _listed(store: RegistryStore) -> list[int]:
    return [instance.port for instance in store.snapshot().services.get("users", ())]


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


def test_one_that_is_heard_of_does_not_keep_another_alive(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    heard_of, _ = register(5100), register(5110)
    clock.passes(1)
    store.beat(heard_of)
    clock.passes(LEASE_SECONDS - 1)

    assert _listed(store) == [5100]


def test_the_same_place_again_replaces_the_instance(store: RegistryStore, register: Register) -> None:
    old, new = register(), register()

    assert [instance.instance_id for instance in store.instances("users")] == [new]
    assert old != new


def test_an_address_belongs_to_the_service_that_registered_last(
    store: RegistryStore, register: Register
) -> None:
    register()
    new = register(service_name="polls")

    assert (store.instances("users"), [one.instance_id for one in store.instances("polls")]) == ([], [new])


@pytest.mark.parametrize(
    ("old", "new", "remaining"),
    [
        ("localhost", "127.0.0.1", 1),
        ("127.0.0.1", "localhost", 1),
        ("::1", "localhost", 1),
        ("::1", "127.0.0.1", 2),
        ("127.0.0.2", "localhost", 2),
        ("users", "localhost", 2),
    ],
)
def test_localhost_is_the_address_of_this_machine(
    store: RegistryStore, register: Register, old: str, new: str, remaining: int
) -> None:
    register(host=old)
    register(host=new, service_name="polls")

    assert sum(len(instances) for instances in store.snapshot().services.values()) == remaining


def test_another_port_of_the_same_host_is_another_address(store: RegistryStore, register: Register) -> None:
    register(5100), register(5110, "polls")

    assert _listed(store) == [5100]


def test_an_old_incarnation_cannot_touch_its_successor(store: RegistryStore, register: Register) -> None:
    old, _ = register(), register()

    for verb in (store.beat, store.deregister):
        with pytest.raises(NotFound):
            verb(old)
    assert _listed(store) == [5100]


def _ids(store: RegistryStore) -> list[str]:
    return [one.instance_id for one in store.snapshot().services.get("users", ())]


def test_of_instances_that_share_an_address_the_newest_is_listed(
    store: RegistryStore, register: Register
) -> None:
    _, new = register(shares_address=True), register(shares_address=True)

    assert _ids(store) == [new]
    assert store.status().services["users"].instances == 1


def test_heartbeats_of_instances_that_share_an_address_change_nothing(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    ids = [register(shares_address=True) for _ in range(3)]
    before = store.version()
    for _ in range(5):
        clock.passes(HEARTBEAT_SECONDS)
        for instance_id in ids:
            store.beat(instance_id, Status.UP)

    assert (store.version(), _ids(store)) == (before, ids[-1:])


def _drain(store: RegistryStore, clock: Clock, instance_id: str, other: str) -> None:
    store.beat(instance_id, Status.DRAINING)


def _deregister(store: RegistryStore, clock: Clock, instance_id: str, other: str) -> None:
    store.deregister(instance_id)


def _fall_silent(store: RegistryStore, clock: Clock, instance_id: str, other: str) -> None:
    clock.passes(LEASE_SECONDS / 2)
    store.beat(other)
    clock.passes(LEASE_SECONDS / 2)


@pytest.mark.parametrize("leave", [_drain, _deregister, _fall_silent])
def test_when_the_one_that_is_listed_leaves_another_at_its_address_is_listed(
    store: RegistryStore,
    register: Register,
    clock: Clock,
    leave: Callable[[RegistryStore, Clock, str, str], None],
) -> None:
    other, listed = register(shares_address=True), register(shares_address=True)
    since = store.version()
    leave(store, clock, listed, other)
    changes = store.changes(since)

    assert _ids(store) == [other]
    assert changes is not None
    assert ([one.instance_id for one in changes.changed], changes.removed) == ([other], (listed,))


def test_an_instance_that_is_not_listed_leaves_unnoticed(store: RegistryStore, register: Register) -> None:
    other, listed = register(shares_address=True), register(shares_address=True)
    before = store.version()
    store.beat(other, Status.DRAINING)
    store.deregister(other)

    assert (store.version(), _ids(store)) == (before, [listed])


def test_of_instances_that_share_an_address_those_that_are_well_are_listed_first(
    store: RegistryStore, register: Register
) -> None:
    old, new = register(shares_address=True), register(shares_address=True)
    store.beat(new, Status.DEGRADED)
    listed = _ids(store)
    store.beat(new, Status.UP)

    assert (listed, _ids(store)) == ([old], [new])


@pytest.mark.parametrize(
    ("service_name", "shares_address"), [("users", False), ("polls", False), ("polls", True)]
)
def test_all_that_share_an_address_are_replaced_by_what_does_not_share_it_with_them(
    store: RegistryStore, register: Register, service_name: str, shares_address: bool
) -> None:
    ids = [register(shares_address=True) for _ in range(2)]
    new = register(service_name=service_name, shares_address=shares_address)

    assert [one.instance_id for one in store.instances(service_name)] == [new]
    for instance_id in ids:
        with pytest.raises(NotFound):
            store.beat(instance_id)


def test_an_instance_that_shares_its_address_replaces_one_that_does_not(
    store: RegistryStore, register: Register
) -> None:
    old, new = register(), register(shares_address=True)
    store.deregister(new)

    assert _ids(store) == []
    with pytest.raises(NotFound):
        store.beat(old)


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


def test_when_all_fall_silent_at_once_not_even_the_first_is_taken_for_gone(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    for port in (5100, 5110, 5120):
        register(port)
        clock.passes(HEARTBEAT_SECONDS / 3)
    clock.passes(LEASE_SECONDS - HEARTBEAT_SECONDS + 0.1)

    assert [instance.status for instance in store.instances("users")] == ["suspect", "up", "up"]


def test_those_who_fall_silent_one_after_the_other_are_gone(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    for port in (5100, 5110, 5120):
        register(port)
        clock.passes(LEASE_SECONDS)
        store.expire()

    assert _listed(store) == []


def test_the_doubt_says_since_when_and_why(clock: Clock) -> None:
    store = RegistryStore(clock, wall_clock=lambda: NOW)
    for port in (5100, 5110, 5120, 5130):
        store.register(module.NewInstance(service_name="users", host="127.0.0.1", port=port))
    clock.passes(LEASE_SECONDS)
    doubt = store.status().self_preservation

    assert doubt is not None
    assert (doubt.since, doubt.reason) == (NOW, "4 of 4 instances fell silent within 15 s")


def test_the_doubt_ends_with_the_last_suspect(store: RegistryStore, register: Register, clock: Clock) -> None:
    ids = [register(port) for port in (5100, 5110, 5120)]
    clock.passes(LEASE_SECONDS)
    store.expire()
    for instance_id in ids:
        store.beat(instance_id)

    assert store.status().self_preservation is None


def test_a_suspect_that_comes_back_says_of_itself_what_it_said_before(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    ids = [register(port) for port in (5100, 5110, 5120)]
    store.beat(ids[0], Status.DEGRADED)
    clock.passes(LEASE_SECONDS)
    store.expire()

    assert store.beat(ids[0]).status is Status.DEGRADED


def test_a_suspects_place_can_be_taken_at_once(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    for port in (5100, 5110, 5120):
        register(port)
    clock.passes(LEASE_SECONDS)
    store.expire()
    register(5100)

    assert {one.port: one.status.value for one in store.instances("users")} == {
        5100: "up",
        5110: "suspect",
        5120: "suspect",
    }


def test_the_wall_clock_expires_nobody(clock: Clock) -> None:
    times = iter([NOW, NOW + timedelta(hours=1), NOW - timedelta(hours=1)])
    store = RegistryStore(clock, wall_clock=lambda: next(times))
    for port in (5100, 5110, 5120):
        store.register(module.NewInstance(service_name="users", host="127.0.0.1", port=port))
    clock.passes(LEASE_SECONDS - 1)

    assert _listed(store) == [5100, 5110, 5120]


def test_one_that_falls_silent_long_after_the_suspects_is_gone(
    store: RegistryStore, register: Register, clock: Clock
) -> None:
    *_, survivor = [register(port) for port in (5100, 5110, 5120, 5130)]
    for _ in range(3):
        clock.passes(LEASE_SECONDS - 5)
        store.beat(survivor)
    clock.passes(LEASE_SECONDS)

    assert _listed(store) == [5100, 5110, 5120]


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
    store = RegistryStore(StallFreeClock(clock))
    store.register(module.NewInstance(service_name="users", host="127.0.0.1", port=5100))
    clock.passes(1)
    store.expire()
    clock.passes(3600)

    assert _listed(store) == [5100]


def test_time_passes_while_the_process_runs() -> None:
    clock = Clock()
    lived = StallFreeClock(clock)
    for _ in range(10):
        clock.passes(STALL_SECONDS / 2)
        lived()

    assert lived() == 10 * STALL_SECONDS / 2


def test_a_service_may_have_thousands_of_instances(store: RegistryStore, register: Register) -> None:
    for port in range(1, 2001):
        register(port)

    assert len(store.instances("users")) == 2000


def test_who_takes_a_place_needs_no_other(
    store: RegistryStore, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_INSTANCES", 1)
    register(1)

    assert store.instances("users") != [register(1)]


def test_there_is_an_end_to_all_instances(
    store: RegistryStore, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_INSTANCES", 2)
    register(1, "users")
    register(2, "likes")

    with pytest.raises(Conflict):
        register(3, "polls")
    with pytest.raises(NotFound):
        store.instances("polls")


def test_the_services_that_are_gone_are_not_remembered_without_end(
    store: RegistryStore, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_INSTANCES", 3)
    register(2, "here")
    for name in ("first", "second", "third"):
        store.deregister(register(1, name))

    assert set(store.status().services) == {"here", "second", "third"}


def test_the_list_keeps_its_order_whoever_is_heard_of(store: RegistryStore, register: Register) -> None:
    first, _ = register(5100), register(5110)
    store.beat(first)

    assert _listed(store) == [5100, 5110]


def test_every_change_is_announced(store: RegistryStore, register: Register, clock: Clock) -> None:
    announced: list[int] = []
    store.on_change(lambda: announced.append(store.version()))
    instance_id = register()
    store.beat(instance_id)
    store.beat(instance_id, Status.DRAINING)
    clock.passes(LEASE_SECONDS)
    store.expire()

    assert announced == [1, 2, 3]


def test_a_service_whose_instances_have_gone_is_empty_and_not_unknown(
    store: RegistryStore, register: Register
) -> None:
    store.deregister(register())

    assert store.instances("users") == []
    with pytest.raises(NotFound):
        store.instances("likes")
