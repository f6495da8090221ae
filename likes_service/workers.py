"""The likes service's workers: one validates likes and applies events, the other mails the notifications."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from threading import Event, Thread
from typing import NamedTuple

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.errors import Unavailable
from common.jobs.conditions import Kinds
from common.jobs.producer import Producer
from common.jobs.queue import TTR_SECONDS, Job, JobQueue, QueueUnavailable
from common.jobs.worker import Periodic, each, queues_on, run_together, stop_on_signal, work
from common.tokens import Tokens
from common.worker.presence import present
from likes_service.cascade import Cascade
from likes_service.clients import TimelinesClient, UsersClient
from likes_service.interrupt import Interrupt
from likes_service.mailer import MailServer, MailServerUnavailable
from likes_service.models import (
    EVENT,
    EVENTS_TUBE,
    NOTIFICATION,
    NOTIFY_TUBE,
    TIMELINES_TUBE,
    USERS_TUBE,
    VALIDATE_TUBE,
    ValidateLike,
)
from likes_service.service import LikeValidator, Notifier
from likes_service.settings import LikesSettings, NotificationWorkerSettings, ValidationWorkerSettings
from likes_service.store import LikesStore

SWEEP_INTERVAL_SECONDS = 5
# Of each Beanstalkd. A recipient that the mail server takes minutes to check holds up one of these.
MAX_SESSIONS = 4
TOUCH_SECONDS = TTR_SECONDS / 4
POLL_SECONDS = 0.1
OUTAGES = (Unavailable, QueueUnavailable, MailServerUnavailable, *LikesStore.outages)


class Connections:
    """What the workers work with. Opening it touches no network but the registry, if a service is called."""

    def __init__(self, settings: LikesSettings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._tokens = Tokens.from_settings(settings)
        self._threads = MAX_SESSIONS * len(settings.beanstalkds)
        self.store = stack.enter_context(closing(LikesStore.connect(settings.redis_url, self._threads)))

    @cached_property
    def _directory(self) -> Directory:
        return self._stack.enter_context(Directory(self._settings.registry_url))

    def producer(self, tube: str) -> Producer:
        return self._stack.enter_context(closing(Producer(self._settings.beanstalkds, tube)))

    def service(self, name: str) -> ServiceClient:
        client = ServiceClient(name, self._directory, self._tokens, "likes", max_calls=self._threads)
        return self._stack.enter_context(closing(client))


def validate(settings: LikesSettings, stop: Event) -> None:
    """Validate likes until `stop` is set."""
    with ExitStack() as stack:
        connections = Connections(settings, stack)
        timelines = TimelinesClient(connections.service("timelines"))
        validation = LikeValidator(
            connections.store,
            timelines,
            connections.producer(VALIDATE_TUBE),
            connections.producer(NOTIFY_TUBE),
            connections.producer(TIMELINES_TUBE),
        )

        handle = each(lambda payload: validation.validate(ValidateLike.model_validate(payload)))
        sweep = Periodic(SWEEP_INTERVAL_SECONDS, validation.sweep, OUTAGES)
        with queues_on(settings.beanstalkds, VALIDATE_TUBE) as queues:
            work(queues, handle, OUTAGES, stop, chores=[sweep])


def apply_events(settings: LikesSettings, stop: Event) -> None:
    """Apply the events of other services until `stop` is set."""
    with ExitStack() as stack:
        connections = Connections(settings, stack)
        own, users = (connections.producer(tube) for tube in (EVENTS_TUBE, USERS_TUBE))
        cascade = Cascade(connections.store, own, users)

        handle = each(lambda payload: cascade.apply(EVENT.validate_python(payload)))
        with queues_on(settings.beanstalkds, EVENTS_TUBE) as queues:
            work(queues, handle, OUTAGES, stop)


def notify(settings: LikesSettings, stop: Event) -> None:
    """Mail the notifications about likes until `stop` is set."""
    with ExitStack() as stack:
        connections = Connections(settings, stack)
        notifier = Notifier(
            connections.store,
            UsersClient(connections.service("users")),
            mail_server(settings),
            connections.producer(NOTIFY_TUBE),
            timedelta(seconds=settings.smtp_retry_seconds),
        )

        def handle(jobs: Sequence[Job]) -> None:
            for job in jobs:
                notification = NOTIFICATION.validate_python(job.open())
                with _kept(job, stop) as interrupt:
                    notifier.notify(notification, interrupt)

        def run(number: int, stop: Event) -> None:
            with queues_on(settings.beanstalkds, NOTIFY_TUBE) as queues:
                work(queues, handle, OUTAGES, stop, reminds=number == 0)

        run_together([partial(run, number) for number in range(MAX_SESSIONS)], stop)


@contextmanager
def _kept(job: Job, stop: Event) -> Iterator[Interrupt]:
    """Keep the lease of a job meanwhile; what is yielded is called as soon as the worker is to stop."""
    interrupt, done = Interrupt(), Event()

    def keep() -> None:
        touch_at = time.monotonic() + TOUCH_SECONDS
        while not done.wait(POLL_SECONDS):
            if stop.is_set():
                interrupt()
            elif time.monotonic() > touch_at:
                touch_at += TOUCH_SECONDS
                # Without Beanstalkd, the loop learns of it when it settles the job.
                with suppress(QueueUnavailable):
                    job.touch()

    keeper = Thread(target=keep, name="lease")
    keeper.start()
    try:
        yield interrupt
    finally:
        done.set()
        keeper.join()


def mail_server(settings: LikesSettings) -> MailServer:
    return MailServer(
        settings.smtp_host,
        settings.smtp_port,
        settings.smtp_from,
        settings.smtp_user,
        settings.smtp_password,
        settings.smtp_starttls,
        settings.smtp_implicit_tls,
    )


class Worker(NamedTuple):
    """A worker as a process: its name, the loops that it runs, and what else than the rest it needs."""

    name: str
    settings: type[LikesSettings]
    loops: Sequence[Callable[[LikesSettings, Event], None]]
    needs: Kinds


NEEDS: Kinds = {"beanstalkd": JobQueue.outages, "redis": LikesStore.outages}
WORKERS = {
    "validation": Worker(
        "likes_validation_worker",
        ValidationWorkerSettings,
        [validate, apply_events],
        {"timelines": (Unavailable,)},
    ),
    "notification": Worker(
        "likes_notification_worker",
        NotificationWorkerSettings,
        [notify],
        {"users": (Unavailable,), "smtp": (MailServerUnavailable,)},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m likes_service.workers", description=__doc__)
    parser.add_argument("worker", nargs="?", choices=list(WORKERS), default="validation")
    worker = WORKERS[parser.parse_args().worker]
    settings = worker.settings.read()
    settings.configure_logging(worker.name)
    stop = stop_on_signal()
    with present(worker.name, settings, {**NEEDS, **worker.needs}, stop):
        run_together([partial(loop, settings) for loop in worker.loops], stop)


if __name__ == "__main__":
    main()
