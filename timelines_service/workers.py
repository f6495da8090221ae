"""The timelines worker: stores the posts that were accepted for later."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from threading import Event

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.errors import Unavailable
from common.jobs.queue import Job, JobQueue
from common.jobs.worker import Periodic, prepare, run_together, stop_on_signal, work
from common.tokens import Tokens
from common.worker.presence import present
from timelines_service import events
from timelines_service.clients import UsersClient
from timelines_service.models import TUBE, AcceptedPost
from timelines_service.service import MentionResolver
from timelines_service.settings import TimelinesSettings, TimelinesWorkerSettings
from timelines_service.store import TimelinesStore

NAME = "timelines_worker"
NEEDS = {"beanstalkd": JobQueue.outages, "postgres": TimelinesStore.outages}

BATCH = 100
EVENT_BATCH = 50
DELETE_KEYS_SECONDS = 10
SWEEP_SECONDS = 1
SWEEP_NOTIFICATIONS_SECONDS = 10
FIND_TAGS_SECONDS = 1
INDEX_SECONDS = 1
DELETE_EVENTS_SECONDS = 10
RESOLVE_SECONDS = 1
# Jobs wait meanwhile.
STEPS_AT_ONCE = 20


def save(store: TimelinesStore, jobs: Sequence[Job]) -> None:
    """Store these posts; one that came before changes nothing."""
    store.add_missing([AcceptedPost.model_validate(job.open()) for job in jobs])


def repeat(step: Callable[[], bool]) -> None:
    """Take some steps, each of a batch, until one says that nothing is left."""
    for _ in range(STEPS_AT_ONCE):
        if not step():
            return


def ready(store: TimelinesStore) -> None:
    """Make the store ready to take posts. Raises the store's outages."""
    store.prepare()
    store.ping()


def store_posts(settings: TimelinesSettings, stop: Event) -> None:
    """Store what was accepted for later until `stop` is set."""
    with (
        closing(JobQueue.connect(settings.beanstalkd_host, settings.beanstalkd_port, TUBE)) as queue,
        closing(TimelinesStore.connect(settings.database)) as store,
        Directory(settings.registry_url) as directory,
        closing(ServiceClient("users", directory, Tokens.from_settings(settings), "timelines")) as users,
    ):
        resolver = MentionResolver(store, UsersClient(users))
        delete_keys = Periodic(DELETE_KEYS_SECONDS, store.delete_expired_keys, store.outages)
        sweep_posts = Periodic(SWEEP_SECONDS, partial(repeat, store.deletions.sweep), store.outages)
        sweep_accounts = Periodic(
            SWEEP_SECONDS, partial(repeat, store.account_deletions.sweep), store.outages
        )
        sweep_notifications = Periodic(
            SWEEP_NOTIFICATIONS_SECONDS, partial(repeat, store.inbox.sweep), store.outages
        )
        find_tags = Periodic(FIND_TAGS_SECONDS, store.tags.parse_missing, store.outages)
        index = Periodic(INDEX_SECONDS, partial(repeat, store.search.index_missing), store.outages)
        delete_events = Periodic(DELETE_EVENTS_SECONDS, store.stream_log.delete_old, store.outages)
        outages = (Unavailable, *store.outages)
        resolve = Periodic(RESOLVE_SECONDS, partial(repeat, resolver.resolve), outages)

        def periodic() -> None:
            delete_keys()
            sweep_accounts()
            sweep_posts()
            sweep_notifications()
            find_tags()
            index()
            delete_events()
            resolve()

        get_ready = partial(ready, store)
        prepare(get_ready, store.outages, stop)
        work(queue, partial(save, store), store.outages, stop, BATCH, periodic, get_ready)


def apply_events(settings: TimelinesSettings, stop: Event) -> None:
    """Apply the events of other services until `stop` is set."""
    with (
        closing(JobQueue.connect(settings.beanstalkd_host, settings.beanstalkd_port, events.TUBE)) as queue,
        closing(TimelinesStore.connect(settings.database)) as store,
    ):

        def handle(jobs: Sequence[Job]) -> None:
            store.events.apply(*(events.EVENT.validate_python(job.open()) for job in jobs))

        get_ready = partial(ready, store)
        prepare(get_ready, store.outages, stop)
        work(queue, handle, store.outages, stop, EVENT_BATCH, ready=get_ready)


def main() -> None:
    settings = TimelinesWorkerSettings.read()
    settings.configure_logging(NAME)
    stop = stop_on_signal()
    with present(NAME, settings, NEEDS, stop):
        run_together((partial(store_posts, settings), partial(apply_events, settings)), stop)


if __name__ == "__main__":
    main()
