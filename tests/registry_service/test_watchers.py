"""Those who watch the table, whatever happens to it."""

import asyncio
import random
from contextlib import suppress

import pytest

from common.discovery.directory import NEWS
from common.discovery.models import LEASE_SECONDS, Changes, Snapshot, Status
from common.errors import NotFound
from registry_service import change_log
from registry_service import watchers as watchers_module
from registry_service.models import NewInstance, Position
from registry_service.store import RegistryStore
from registry_service.watchers import SnapshotWatchers
from tests.polling import PATIENCE_SECONDS
from tests.registry_service.conftest import Clock

WATCHERS = 5
CHANGES = 400


def _change(store: RegistryStore, clock: Clock, dice: random.Random, ids: list[str]) -> None:
    """One of the things that happen to a registry."""
    name, port = dice.choice(["users", "likes"]), dice.randrange(5100, 5106)
    known = dice.choice(ids or ["nobody"])
    match dice.randrange(5):
        case 0:
            new = NewInstance(service_name=name, host="127.0.0.1", port=port)
            ids.append(store.register(new, shares_address=dice.random() < 0.7).instance_id)
        case 1 | 2:
            store.beat(known, dice.choice([None, Status.UP, Status.DEGRADED, Status.DRAINING]))
        case 3:
            store.deregister(known)
        case 4:
            clock.passes(dice.uniform(0, LEASE_SECONDS / 2))


async def _follow(watchers: SnapshotWatchers, dice: random.Random) -> list[Snapshot]:
    """All tables seen until the one that nobody is in any more, each asked for with the one before."""
    seen: list[Snapshot] = []
    takes_changes = dice.random() < 0.5
    position = Position()
    while not seen or "end" not in seen[-1].services:
        news = NEWS.validate_json(await watchers.news(position))
        assert takes_changes or isinstance(news, Snapshot)
        seen.append(seen[-1].after(news) if isinstance(news, Changes) else news)
        position = Position(epoch=seen[-1].epoch, version=seen[-1].version, wait=30, changes=takes_changes)
        for _ in range(dice.randrange(4)):  # some are slow to ask again
            await asyncio.sleep(0)
    return seen


async def _watched(
    store: RegistryStore, clock: Clock, seed: int
) -> tuple[list[list[Snapshot]], list[Snapshot]]:
    """What each watcher has seen while the registry changed, and all that there was to see."""
    dice, ids, history = random.Random(seed), [], [store.snapshot()]
    async with SnapshotWatchers(store) as watchers:
        following = [
            asyncio.create_task(_follow(watchers, random.Random(seed + number))) for number in range(WATCHERS)
        ]
        for _ in range(CHANGES):
            with suppress(NotFound):
                _change(store, clock, dice, ids)
            history.append(store.snapshot())
            await asyncio.sleep(0)
        store.register(NewInstance(service_name="end", host="127.0.0.1", port=1))
        history.append(store.snapshot())
        return await asyncio.wait_for(asyncio.gather(*following), PATIENCE_SECONDS), history


def _statuses(snapshot: Snapshot) -> dict[str, Status]:
    return {one.instance_id: one.status for instances in snapshot.services.values() for one in instances}


@pytest.mark.parametrize("seed", range(5))
def test_every_watcher_sees_true_tables_in_order_and_in_the_end_the_last(
    store: RegistryStore, clock: Clock, seed: int
) -> None:
    watched, history = asyncio.run(_watched(store, clock, seed))
    truth = {snapshot.version: _statuses(snapshot) for snapshot in history}

    for seen in watched:
        versions = [snapshot.version for snapshot in seen]
        assert versions == sorted(set(versions))
        assert [_statuses(snapshot) for snapshot in seen] == [truth[version] for version in versions]
        assert versions[-1] == history[-1].version


def test_a_version_is_never_two_different_tables(store: RegistryStore, clock: Clock) -> None:
    _, history = asyncio.run(_watched(store, clock, seed=0))
    tables = {(snapshot.version, str(_statuses(snapshot))) for snapshot in history}

    assert len(tables) == len({snapshot.version for snapshot in history}) > CHANGES / 4


@pytest.mark.parametrize("known", [1, 10])
def test_who_lacks_more_changes_than_are_kept_sees_true_tables_as_well(
    store: RegistryStore, clock: Clock, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "MAX_CHANGES", known)

    test_every_watcher_sees_true_tables_in_order_and_in_the_end_the_last(store, clock, seed=known)


async def _responses_to(store: RegistryStore, watchers: int, changes: int) -> int:
    """How many responses so many watchers get, while there are changes one after the other."""
    responses = 0

    async def watch(following: SnapshotWatchers) -> None:
        nonlocal responses
        version = store.version()
        while True:
            news = await following.news(Position(version=version, wait=30, changes=True))
            version = NEWS.validate_json(news).version
            responses += 1

    async with SnapshotWatchers(store) as following:
        tasks = [asyncio.create_task(watch(following)) for _ in range(watchers)]
        for port in range(1, changes + 1):
            await asyncio.sleep(0)
            store.register(NewInstance(service_name="users", host="127.0.0.1", port=port))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return responses


def test_many_changes_wake_many_watchers_a_few_times(
    store: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchers_module, "PAUSE_SECONDS_A_RESPONSE", PATIENCE_SECONDS)
    monkeypatch.setattr(watchers_module, "MAX_PAUSE_SECONDS", PATIENCE_SECONDS)

    assert asyncio.run(_responses_to(store, watchers=20, changes=500)) == 20


def test_what_is_the_same_for_all_watchers_is_rendered_once(store: RegistryStore) -> None:
    async def responses() -> list[bytes]:
        async with SnapshotWatchers(store) as watchers:
            store.register(NewInstance(service_name="users", host="127.0.0.1", port=1))
            await asyncio.sleep(0)
            return [await watchers.news(Position(version=0, changes=True)) for _ in range(2)]

    one, other = asyncio.run(responses())

    assert one is other
