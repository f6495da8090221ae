"""The timelines worker: stores the posts that were accepted for later."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from threading import Event

from common.jobs.queue import Job, JobQueue
from common.jobs.worker import Periodic, prepare, stop_on_signal, work
from timelines_service.models import TUBE, Post
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore

BATCH = 100
DELETE_KEYS_SECONDS = 10


def save(store: TimelinesStore, jobs: Sequence[Job]) -> None:
    """Store these posts; one that came before changes nothing."""
    store.add_missing([Post.model_validate(job.open()) for job in jobs])


def ready(store: TimelinesStore) -> None:
    """Make the store ready to take posts. Raises the store's outages."""
    store.prepare()
    store.ping()


def store_posts(settings: TimelinesSettings, stop: Event) -> None:
    """Store what was accepted for later until `stop` is set."""
    with (
        closing(JobQueue.connect(settings.beanstalkd_host, settings.beanstalkd_port, TUBE)) as queue,
        closing(TimelinesStore.connect(settings.database)) as store,
    ):
        delete_keys = Periodic(DELETE_KEYS_SECONDS, store.delete_expired_keys, store.outages)
        get_ready = partial(ready, store)
        prepare(get_ready, store.outages, stop)
        work(queue, partial(save, store), store.outages, stop, BATCH, delete_keys, get_ready)


def main() -> None:
    settings = TimelinesSettings.read()
    settings.configure_logging()
    store_posts(settings, stop_on_signal())


if __name__ == "__main__":
    main()
