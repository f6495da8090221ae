"""The timelines worker: stores queued posts, applies events, and cleans up."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from threading import Event

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.errors import Unavailable
from common.jobs.queue import Job, JobQueue
from common.jobs.worker import Periodic, prepare, queues_on, run_together, stop_on_signal, work
from common.tokens import Tokens
from common.worker.presence import present
from timelines_service import events
from timelines_service.clients import UsersClient
from timelines_service.models import TUBE, AcceptedPost
from timelines_service.service import MentionResolver
from timelines_service.settings import TimelinesSettings, TimelinesWorkerSettings
from timelines_service.store import TimelinesStore
from timelines_service.tags import mentions

NAME = "timelines_worker"
NEEDS = {"beanstalkd": JobQueue.outages, "postgres": TimelinesStore.outages}

BATCH = 100
EVENT_BATCH = 50
OFTEN_SECONDS = 1
SELDOM_SECONDS = 10
PAUSE_SECONDS = 0.2
# Other chores wait meanwhile.
STEPS_AT_ONCE = 20


def save(store: TimelinesStore, users: UsersClient, jobs: Sequence[Job]) -> None:
    """Store these posts; one that came before changes nothing."""
    posts = [AcceptedPost.model_validate(job.open()) for job in jobs]
    store.add_missing(posts, _existing(users, posts))


def _existing(users: UsersClient, posts: Sequence[AcceptedPost]) -> list[str] | None:
    """The users whom these posts mention; None while the users service is away, to be asked later."""
    names = dict.fromkeys(name for post in posts for name in mentions(post.text))
    try:
        return users.existing(list(names)) if names else []
    except Unavailable:
        return None


def apply(store: TimelinesStore, jobs: Sequence[Job]) -> None:
    """Apply these events; one that came before changes nothing."""
    store.events.apply(*(events.EVENT.validate_python(job.open()) for job in jobs))


def repeat(step: Callable[[], bool | None]) -> None:
    """Take some steps, each of a batch, as long as they say that more is left."""
    for _ in range(STEPS_AT_ONCE):
        if not step():
            return


def ready(store: TimelinesStore) -> None:
    """Make the store ready to take posts. Raises the store's outages."""
    store.prepare()
    store.ping()


def store_posts(settings: TimelinesSettings, store: TimelinesStore, users: UsersClient, stop: Event) -> None:
    """Store what was accepted for later until `stop` is set."""
    with queues_on(settings.beanstalkds, TUBE) as queues:
        work(queues, partial(save, store, users), store.outages, stop, BATCH, ready=partial(ready, store))


def apply_events(settings: TimelinesSettings, store: TimelinesStore, stop: Event) -> None:
    """Apply the events of other services until `stop` is set."""
    with queues_on(settings.beanstalkds, events.TUBE) as queues:
        work(queues, partial(apply, store), store.outages, stop, EVENT_BATCH, ready=partial(ready, store))


def clean_up(store: TimelinesStore, users: UsersClient, stop: Event) -> None:
    """Find what posts lack and delete what is left of others, a batch at a time, until `stop` is set."""
    chores = [
        Periodic(seconds, partial(repeat, step), (Unavailable, *store.outages))
        for seconds, step in (
            (OFTEN_SECONDS, store.account_deletions.sweep),
            (OFTEN_SECONDS, store.deletions.sweep),
            (OFTEN_SECONDS, store.tags.parse_missing),
            (OFTEN_SECONDS, store.search.index_missing),
            (OFTEN_SECONDS, MentionResolver(store, users).resolve),
            (SELDOM_SECONDS, store.inbox.sweep),
            (SELDOM_SECONDS, store.stream_log.delete_old),
            (SELDOM_SECONDS, store.delete_expired_keys),
        )
    ]
    while not stop.wait(PAUSE_SECONDS):
        for chore in chores:
            chore()


def main() -> None:
    settings = TimelinesWorkerSettings.read()
    settings.configure_logging(NAME)
    stop = stop_on_signal()
    with (
        present(NAME, settings, NEEDS, stop),
        closing(TimelinesStore.connect(settings.database)) as store,
        Directory(settings.registry_url) as directory,
        closing(ServiceClient("users", directory, Tokens.from_settings(settings), "timelines")) as client,
    ):
        prepare(partial(ready, store), store.outages, stop)
        users = UsersClient(client)
        loops = [
            partial(store_posts, settings, store, users),
            partial(apply_events, settings, store),
            partial(clean_up, store, users),
        ]
        run_together(loops, stop)


if __name__ == "__main__":
    main()
