"""What likes are about: counted at once, validated after, and told to the author."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from threading import Semaphore
from uuid import UUID

from common.jobs.queue import JobQueue, QueueDown
from common.telemetry import context
from likes_service.clients import TimelinesClient, UsersClient
from likes_service.mailer import Conversation, Mail, MailInDoubt, MailRefused, MailServer, MailServerAway
from likes_service.models import Liked, LikeRecorded, Liking, Notice, Post, TakenBack
from likes_service.store import LikesStore

logger = logging.getLogger(__name__)

OVERDUE_AFTER = timedelta(seconds=30)
OVERDUE_AT_ONCE = 200
# Then jobs have their turn again.
SWEEP_SECONDS = 1.0

# While the queue is away it is asked this often.
PAUSE_SECONDS = 5.0
# Who comes when so many are on their way waits a little for room.
MOST_ON_THE_WAY = 1000
TURN_SECONDS = 0.25


class Likes:
    """Takes likes. Threads may share it."""

    def __init__(
        self, store: LikesStore, queue: JobQueue, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        # Nobody who likes waits for the disk of the queue: what is owed is in Redis already.
        self._background = ThreadPoolExecutor(1, "validations")
        self._room = Semaphore(MOST_ON_THE_WAY)
        self._paused_until = 0.0

    def start(self) -> None:
        """The thread starts with the first like."""

    def stop(self) -> None:
        """What is on its way to the queue gets there, or stays owed."""
        self._background.shutdown()

    def like(self, post_id: UUID, username: str) -> Liking:
        """Count the like and have it validated: in a moment, or when the queue is back."""
        now = datetime.now(UTC)
        due = now if self._is_paused() else now + OVERDUE_AFTER
        liking = self._store.like(post_id, username, now, due)
        if liking.changed:
            self._have_validated(LikeRecorded(post_id=post_id, username=username))
        return liking

    def _have_validated(self, recorded: LikeRecorded) -> None:
        """Queue the validation soon; if that cannot be, it stays owed, and is put by the sweep."""
        if not self._is_paused() and self._room.acquire(timeout=TURN_SECONDS):
            self._background.submit(copy_context().run, self._put, recorded)

    def _is_paused(self) -> bool:
        return self._clock() < self._paused_until

    def _put(self, recorded: LikeRecorded) -> None:
        try:
            if not self._is_paused():
                self._queue.put(recorded)
        except QueueDown as exc:
            self._paused_until = self._clock() + PAUSE_SECONDS
            logger.warning("likes are validated later: %s", exc)
        finally:
            self._room.release()


class Validation:
    """Finds out whether liked posts exist, and has those told whom it concerns.

    Every step may be the last one before a crash: then the job comes again,
    and goes on with what is still owed.
    """

    def __init__(
        self, store: LikesStore, timelines: TimelinesClient, validations: JobQueue, notices: JobQueue
    ) -> None:
        self._store = store
        self._timelines = timelines
        self._validations = validations
        self._notices = notices

    def validate(self, recorded: LikeRecorded) -> None:
        owed = self._store.owed(recorded.post_id, recorded.username)
        if owed is None:
            return
        if owed.liked_at:
            post = self._timelines.post(recorded.post_id)
            if post:
                self._tell_author(post, recorded)
                self._store.settle(owed)
                return
            owed = self._store.take_back(owed)
        if owed:
            self._notices.put(TakenBack(**recorded.model_dump()))
            self._store.settle(owed)

    def _tell_author(self, post: Post, recorded: LikeRecorded) -> None:
        if post.username != recorded.username:
            self._notices.put(Liked(**recorded.model_dump(), author=post.username, text=post.text))

    def sweep(self) -> None:
        """Queue again what should have been settled long ago: its job was never put, or was lost."""
        # Raises while the queue is away: what is taken then could not be put.
        self._validations.ping()
        until = time.monotonic() + SWEEP_SECONDS
        while time.monotonic() < until:
            overdue = self._store.take_overdue(datetime.now(UTC), OVERDUE_AT_ONCE)
            for recorded in overdue:
                context.begin()
                self._validations.put(recorded)
            if len(overdue) < OVERDUE_AT_ONCE:
                return


class Notification:
    """Mails people, at most once about each like, whatever comes twice."""

    def __init__(self, store: LikesStore, users: UsersClient, mail_server: MailServer) -> None:
        self._store = store
        self._users = users
        self._mail_server = mail_server
        # Who lost the answer to a claim asks again as the same claimant: perhaps it was granted.
        self._claimants: dict[str, str] = {}

    def notify(self, notice: Notice) -> None:
        recipient = notice.author if isinstance(notice, Liked) else notice.username
        address = self._users.address(recipient)
        if address is None:
            return
        key = f"{notice.kind}.{notice.post_id}.{notice.username}"
        mail = self._compose(key, notice, address)
        claimant = self._claimants.setdefault(key, token_hex(8))
        with self._mail_server.conversation() as conversation:
            # Claimed when nothing is left to do but to send it: who dies now leaves it unsent, not doubled.
            if self._store.claim(notice, claimant):
                self._send(conversation, mail, notice)
            del self._claimants[key]

    def _send(self, conversation: Conversation, mail: Mail, notice: Notice) -> None:
        try:
            conversation.send(mail)
        except MailServerAway:
            self._store.release(notice)
            raise
        except (MailRefused, MailInDoubt) as exc:
            logger.warning(
                "the %s mail for post %s and %s is not tried again: %s",
                notice.kind,
                notice.post_id,
                notice.username,
                exc,
            )

    def _compose(self, key: str, notice: Notice, address: str) -> Mail:
        if isinstance(notice, Liked):
            subject = f"{notice.username} likes your post"
            return self._mail_server.compose(key, address, subject, f"{subject}:\n\n{notice.text}\n")
        subject = "Your like was taken back"
        text = f"{subject}, because there is no post {notice.post_id}.\n"
        return self._mail_server.compose(key, address, subject, text)
