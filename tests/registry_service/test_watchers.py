"""Those who watch the table, whatever happens to it."""

import asyncio
import random
from contextlib import suppress

import pytest

from common.discovery.models import LEASE_SECONDS, Status, Table
from common.errors import NotFound
from registry_service.models import NewInstance
from registry_service.store import RegistryStore
from registry_service.watchers import Watch
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


async def _follow(watch: Watch, dice: random.Random) -> list[Table]:
    """All tables seen until the one that nobody is in any more, each asked for with the one before."""
    seen: list[Table] = []
    epoch, version = None, None
    while not seen or "end" not in seen[-1].services:
        seen.append(Table.model_validate_json(await watch.table(epoch, version, 30)))
        epoch, version = seen[-1].epoch, seen[-1].version
        for _ in range(dice.randrange(4)):  # some are slow to ask again
            await asyncio.sleep(0)
    return seen


async def _watched(store: RegistryStore, clock: Clock, seed: int) -> tuple[list[list[Table]], list[Table]]:
    """What each watcher has seen while the registry changed, and all that there was to see."""
    dice, ids, history = random.Random(seed), [], [store.table()]
    async with Watch(store) as watch:
        watchers = [
            asyncio.create_task(_follow(watch, random.Random(seed + number))) for number in range(WATCHERS)
        ]
        for _ in range(CHANGES):
            with suppress(NotFound):
                _change(store, clock, dice, ids)
            history.append(store.table())
            await asyncio.sleep(0)
        store.register(NewInstance(service_name="end", host="127.0.0.1", port=1))
        history.append(store.table())
        return await asyncio.wait_for(asyncio.gather(*watchers), 5), history


def _statuses(table: Table) -> dict[str, Status]:
    return {one.instance_id: one.status for instances in table.services.values() for one in instances}


@pytest.mark.parametrize("seed", range(5))
def test_whoever_watches_sees_true_tables_in_order_and_in_the_end_the_last(
    store: RegistryStore, clock: Clock, seed: int
) -> None:
    watched, history = asyncio.run(_watched(store, clock, seed))
    truth = {table.version: _statuses(table) for table in history}

    for seen in watched:
        versions = [table.version for table in seen]
        assert versions == sorted(set(versions))
        assert [_statuses(table) for table in seen] == [truth[version] for version in versions]
        assert versions[-1] == history[-1].version


def test_a_version_is_never_two_different_tables(store: RegistryStore, clock: Clock) -> None:
    _, history = asyncio.run(_watched(store, clock, seed=0))
    tables = {(table.version, str(_statuses(table))) for table in history}

    assert len(tables) == len({table.version for table in history}) > CHANGES / 4
