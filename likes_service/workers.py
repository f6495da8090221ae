"""The likes service's workers: one validates likes, the other mails those whom they concern."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.errors import Unavailable
from common.jobs.queue import Job, JobQueue, QueueDown
from common.jobs.worker import Every, until_terminated, work
from common.tokens import Tokens
from likes_service.clients import TimelinesClient, UsersClient
from likes_service.mailer import MailServer, MailServerAway
from likes_service.models import NOTICE, NOTIFY_TUBE, VALIDATE_TUBE, LikeRecorded
from likes_service.service import Notification, Validation
from likes_service.settings import LikesSettings
from likes_service.store import LikesStore

SWEEP_SECONDS = 5
OUTAGES = (Unavailable, QueueDown, MailServerAway, *LikesStore.outages)


class Connections:
    """What the workers work with. Opening it touches no network but the registry, in the background."""

    def __init__(self, settings: LikesSettings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._tokens = Tokens.of(settings)
        self._directory = Directory(settings.registry_url)
        self._directory.start()
        stack.callback(self._directory.stop)
        self.store = LikesStore.connect(settings.redis_url)
        stack.callback(self.store.close)

    def queue(self, tube: str) -> JobQueue:
        queue = JobQueue.connect(self._settings.beanstalkd_host, self._settings.beanstalkd_port, tube)
        self._stack.callback(queue.close)
        return queue

    def service(self, name: str) -> ServiceClient:
        client = ServiceClient(name, self._directory, self._tokens, "likes")
        self._stack.callback(client.close)
        return client


def validate(settings: LikesSettings, stop: Event) -> None:
    """Validate likes until `stop` is set."""
    with ExitStack() as stack:
        connections = Connections(settings, stack)
        queue = connections.queue(VALIDATE_TUBE)
        timelines = TimelinesClient(connections.service("timelines"))
        validation = Validation(connections.store, timelines, queue, connections.queue(NOTIFY_TUBE))

        def handle(jobs: Sequence[Job]) -> None:
            for job in jobs:
                validation.validate(LikeRecorded.model_validate(job.open()))

        work(queue, handle, OUTAGES, stop, chore=Every(SWEEP_SECONDS, validation.sweep, OUTAGES))


def notify(settings: LikesSettings, stop: Event) -> None:
    """Mail those whom likes concern until `stop` is set."""
    with ExitStack() as stack:
        connections = Connections(settings, stack)
        users = UsersClient(connections.service("users"))
        notification = Notification(connections.store, users, mail_server(settings))

        def handle(jobs: Sequence[Job]) -> None:
            for job in jobs:
                notification.notify(NOTICE.validate_python(job.open()))

        work(connections.queue(NOTIFY_TUBE), handle, OUTAGES, stop)


def mail_server(settings: LikesSettings) -> MailServer:
    return MailServer(
        settings.smtp_host,
        settings.smtp_port,
        settings.smtp_from,
        settings.smtp_user,
        settings.smtp_password,
        settings.smtp_starttls,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m likes_service.workers", description=__doc__)
    parser.add_argument("worker", nargs="?", choices=["validation", "notification"], default="validation")
    is_validation = parser.parse_args().worker == "validation"
    settings = LikesSettings.read()
    settings.begin_logging()
    (validate if is_validation else notify)(settings, until_terminated())


if __name__ == "__main__":
    main()
