"""Those who watch the table, whatever happens to it."""

import asyncio
import random
from contextlib import suppress

import pytest

from common.discovery.models import LEASE_SECONDS, Snapshot, Status
from common.errors import NotFound
from registry_service.models import NewInstance
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
            ids.append(
                store.register(NewInstance(service_name=name, host="127.0.0.1", port=port)).instance_id
            )
        case 1 | 2:
            store.beat(known, dice.choice([None, Status.UP, Status.DEGRADED, Status.DRAINING]))
        case 3:
            store.deregister(known)
        case 4:
            clock.passes(dice.uniform(0, LEASE_SECONDS / 2))


async def _follow(watchers: SnapshotWatchers, dice: random.Random) -> list[Snapshot]:
    """All tables seen until the one that nobody is in any more, each asked for with the one before."""
    seen: list[Snapshot] = []
    epoch, version = None, None
    while not seen or "end" not in seen[-1].services:
        seen.append(Snapshot.model_validate_json(await watchers.snapshot(epoch, version, 30)))
        epoch, version = seen[-1].epoch, seen[-1].version
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
