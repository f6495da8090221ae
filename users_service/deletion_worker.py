"""What the users service does for deletions in the background: it sweeps, asks again, takes confirmations."""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from threading import Event
from typing import Any

from common.jobs.worker import Periodic, each, queues_on, work
from common.settings import Server
from users_service.deletion_saga import OWN
from users_service.events import TUBE, AccountCleared
from users_service.store import UsersStore

# Confirmations wait meanwhile; between two sweeps the database has as long a rest.
SWEEP_SECONDS = 0.5
EVERY_SECONDS = 1


def run(store: UsersStore, beanstalkds: Sequence[Server], stop: Event) -> None:
    """Go on with deletions until `stop` is set; confirmations come from any of these Beanstalkds."""
    with queues_on(beanstalkds, TUBE) as queues:
        tending = Periodic(EVERY_SECONDS, partial(tend, store), store.outages)
        work(queues, each(partial(confirm, store)), store.outages, stop, chores=[tending])


def tend(store: UsersStore) -> None:
    """Sweep after deleted accounts, for a moment in all; ask those again that have not confirmed for long."""
    until = time.monotonic() + SWEEP_SECONDS
    # That the database is unavailable is told where it is pinged.
    with suppress(*store.outages):
        for username in store.sweep.usernames():
            if not store.sweep.run(username, until - time.monotonic()):
                break
            store.deletions.confirm(username, OWN)
        store.deletions.ask_again()


def confirm(store: UsersStore, payload: dict[str, Any]) -> None:
    """Note what another service has confirmed."""
    event = AccountCleared.model_validate(payload)
    store.deletions.confirm(event.username, event.service)
