"""Likes: counted at once, validated after, and their authors notified.

This is a transactional outbox: the script that counts a like also adds its
validation to the outbox, in Redis, and the one that takes a like back adds the
unlike. The queue is only the quick way to the worker; what it loses, a periodic
sweep of the outbox queues again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from threading import Lock
from typing import Literal
from uuid import UUID

from common.bulkhead import BulkheadFull, ThreadBulkhead
from common.jobs.producer import Producer
from common.jobs.queue import QueueUnavailable
from common.telemetry import context, metrics
from likes_service.clients import TimelinesClient, UsersClient
from likes_service.interrupt import Interrupt
from likes_service.mailer import (
    Mail,
    MailDeferred,
    MailOutcomeUnknown,
    MailRefused,
    MailServer,
    MailServerUnavailable,
    SmtpSession,
)
from likes_service.models import (
    Claim,
    LikeChanged,
    Liked,
    LikeState,
    LikeUndone,
    Notification,
    Post,
    ValidateLike,
)
from likes_service.store import LikesStore

logger = logging.getLogger(__name__)

OVERDUE_AFTER = timedelta(seconds=30)
SWEEP_BATCH = 200
# Then jobs have their turn again.
SWEEP_BUDGET_SECONDS = 1.0

# While the queue is unavailable, it is tried this often.
PAUSE_SECONDS = 5.0
# Validations on their way to the queue; one more waits a little for a slot.
MAX_IN_FLIGHT = 1000
ENQUEUE_WAIT_SECONDS = 0.25

# A deferred mail is tried until it is that old (RFC 5321, 4.5.4.1), and after pauses of at most that long.
GIVE_UP_AFTER = timedelta(days=4)
MAX_DEFERRAL = timedelta(hours=4)

OUTCOMES: dict[Claim, tuple[str, str]] = {
    "granted": ("sent", "sent"),
    "unliked": ("unwanted", "not sent, the like was removed"),
    "mailed": ("unwanted", "not sent, it was mailed already"),
}


class Likes:
    """Takes likes. Threads may share it."""

    def __init__(
        self, store: LikesStore, queue: Producer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        # No client waits for the queue's disk: the outbox, in Redis, has the validation already.
        self._background = ThreadPoolExecutor(1, "validations")
        self._bulkhead = ThreadBulkhead(MAX_IN_FLIGHT, ENQUEUE_WAIT_SECONDS)
        self._paused_until = 0.0

    def close(self) -> None:
        """Let what is on its way to the queue get there; the rest stays in the outbox."""
        self._background.shutdown()

    def like(self, post_id: UUID, username: str) -> LikeState:
        """Count the like and have it validated: in a moment, or when the queue is back."""
        liking = self._store.like(post_id, username, datetime.now(UTC), self._due())
        if liking.changed:
            metrics.likes.add("liked")
            self._enqueue_validation(ValidateLike(post_id=post_id, username=username))
        return liking

    def unlike(self, post_id: UUID, username: str) -> LikeState:
        """Take the like back and have that told, as a like is."""
        state, at = self._store.unlike(post_id, username, self._due())
        if at:
            metrics.likes.add("unliked")
            self._enqueue_validation(ValidateLike(post_id=post_id, username=username, unliked_at=at))
        return state

    def _due(self) -> datetime:
        return datetime.now(UTC) + (timedelta() if self._is_paused() else OVERDUE_AFTER)

    def _enqueue_validation(self, recorded: ValidateLike) -> None:
        """Queue the validation soon; if that fails, the sweep finds it in the outbox and queues it."""
        if self._is_paused():
            return
        with suppress(BulkheadFull):
            self._bulkhead.acquire()
            self._background.submit(copy_context().run, self._put, recorded)

    def _is_paused(self) -> bool:
        return self._clock() < self._paused_until

    def _put(self, recorded: ValidateLike) -> None:
        try:
            if not self._is_paused():
                self._queue.put(recorded)
        except QueueUnavailable as exc:
            self._paused_until = self._clock() + PAUSE_SECONDS
            logger.warning("likes are validated later: %s", exc)
        finally:
            self._bulkhead.release()


class LikeValidator:
    """Finds out whether liked posts exist, and queues the notifications and the events.

    A crash may follow every step: then the job comes again, and goes on with
    what is still in the outbox.
    """

    def __init__(
        self,
        store: LikesStore,
        timelines: TimelinesClient,
        validations: Producer,
        notifications: Producer,
        events: Producer,
    ) -> None:
        self._store = store
        self._timelines = timelines
        self._validations = validations
        self._notifications = notifications
        self._events = events

    def validate(self, recorded: ValidateLike) -> None:
        if recorded.unliked_at:
            self._tell("unliked", recorded, recorded.unliked_at)
            self._store.complete_unlike(recorded)
            return
        pending = self._store.pending(recorded.post_id, recorded.username)
        if pending is None:
            return
        if pending.liked_at:
            post = self._timelines.post(recorded.post_id)
            if post:
                self._tell("liked", recorded, pending.liked_at)
                self._notify_author(post, recorded)
                self._store.complete(pending)
                return
            pending = self._store.undo(pending)
        if pending:
            self._notifications.put(LikeUndone(**recorded.model_dump()))
            self._store.complete(pending)

    def _tell(self, kind: Literal["liked", "unliked"], recorded: ValidateLike, at: datetime) -> None:
        """Tell the timelines service. At least once: the entry is in the outbox until it is told."""
        self._events.put(LikeChanged(kind=kind, username=recorded.username, post_id=recorded.post_id, at=at))

    def _notify_author(self, post: Post, recorded: ValidateLike) -> None:
        notification = Liked(**recorded.model_dump(), author=post.username, text=post.text)
        if post.username == recorded.username:
            _log_outcome(notification, "unwanted", "not sent, it is their own post")
        else:
            self._notifications.put(notification)

    def sweep(self) -> None:
        """Queue overdue validations again: their jobs were never queued, or were lost."""
        # Raises while the queue is unavailable: entries claimed then could not be queued.
        self._validations.ping()
        until = time.monotonic() + SWEEP_BUDGET_SECONDS
        while time.monotonic() < until:
            overdue = self._store.claim_overdue(datetime.now(UTC), SWEEP_BATCH)
            for recorded in overdue:
                context.start_unprompted()
                self._validations.put(recorded)
            if len(overdue) < SWEEP_BATCH:
                return


class Notifier:
    """Mails people, at most once about each like, whatever comes twice. Threads may share it."""

    def __init__(
        self,
        store: LikesStore,
        users: UsersClient,
        mail_server: MailServer,
        queue: Producer,
        first_deferral: timedelta,
    ) -> None:
        self._store = store
        self._users = users
        self._mail_server = mail_server
        self._queue = queue
        self._first_deferral = first_deferral
        # Without a response to its claim, a worker claims again as the same claimant: it may have succeeded.
        self._claimants: dict[str, str] = {}
        self._in_hand: set[str] = set()
        self._lock = Lock()

    def notify(self, notification: Notification, interrupt: Interrupt | None = None) -> None:
        """Mail it, or have it wait, or drop it; the log says which. Raises what is an outage."""
        try:
            _log_outcome(notification, *self._mail(notification, interrupt or Interrupt()))
        except MailDeferred as exc:
            self._defer(notification, exc)
        except MailRefused as exc:
            _log_outcome(notification, "refused", f"not tried again, {exc}", logging.WARNING)
        except MailOutcomeUnknown as exc:
            _log_outcome(notification, "in_doubt", f"not tried again, {exc}", logging.WARNING)

    def _mail(self, notification: Notification, interrupt: Interrupt) -> tuple[str, str]:
        """What became of it, in a word and in detail.

        Raises MailDeferred, MailRefused, MailOutcomeUnknown, and outages.
        """
        recipient = self._users.recipient(notification.recipient)
        if recipient.email is None:
            return "unwanted", "not sent, there is no address"
        if not recipient.mail_notifications:
            return "unwanted", "not sent, the user wants no mail"
        if isinstance(notification, Liked) and self._users.hides(notification.author, notification.username):
            return "unwanted", "not sent, they are muted or blocked"
        key = f"{notification.kind}.{notification.post_id}.{notification.username}"
        mail = self._compose(key, notification, recipient.email)
        with self._as_claimant(key) as claimant, self._mail_server.session(interrupt) as session:
            try:
                session.open_envelope(mail)
            except MailRefused:
                # For good: also when its job comes twice, or the user likes the post again.
                self._store.claim(notification, claimant)
                raise
            # Claimed last, just before sending: after a crash in between, the mail is lost, not doubled.
            claim = self._store.claim(notification, claimant)
            if claim == "granted":
                self._send(session, mail, notification)
            return OUTCOMES[claim]

    @contextmanager
    def _as_claimant(self, key: str) -> Iterator[str]:
        """The claimant of this mail: the same until what became of the mail is known."""
        with self._lock:
            if key in self._in_hand:
                raise MailDeferred("it is in hand already")
            self._in_hand.add(key)
            claimant = self._claimants.pop(key, None) or token_hex(8)
        try:
            yield claimant
        except (MailDeferred, MailRefused, MailOutcomeUnknown):
            raise
        except Exception:  # whatever it is, the mail may have been claimed
            self._claimants[key] = claimant
            raise
        finally:
            self._in_hand.discard(key)

    def _send(self, session: SmtpSession, mail: Mail, notification: Notification) -> None:
        try:
            session.send(mail)
        except (MailServerUnavailable, MailDeferred):
            self._store.release(notification)
            raise

    def _defer(self, notification: Notification, reason: MailDeferred) -> None:
        """Have it wait for as long as it has waited: a new job, so that no attempt counts against it."""
        now = datetime.now(UTC)
        since = notification.deferred_since or now
        if now - since > GIVE_UP_AFTER:
            _log_outcome(
                notification,
                "given_up",
                f"given up, deferred since {_second(since)}, {reason}",
                logging.WARNING,
            )
            return
        pause = min(max(now - since, self._first_deferral), MAX_DEFERRAL)
        deferred = notification.model_copy(update={"deferred_since": since})
        self._queue.put(deferred, delay=round(pause.total_seconds()))
        _log_outcome(notification, "deferred", f"deferred until {_second(now + pause)}, {reason}")

    def _compose(self, key: str, notification: Notification, address: str) -> Mail:
        if isinstance(notification, Liked):
            subject = f"{notification.username} likes your post"
            return self._mail_server.compose(key, address, subject, f"{subject}:\n\n{notification.text}\n")
        subject = "Your like was taken back"
        text = f"{subject}, because there is no post {notification.post_id}.\n"
        return self._mail_server.compose(key, address, subject, text)


def _second(at: datetime) -> str:
    return at.isoformat(timespec="seconds")


def _log_outcome(notification: Notification, outcome: str, detail: str, level: int = logging.INFO) -> None:
    """Count the outcome, and log its detail."""
    metrics.mails.add(notification.kind, outcome)
    logger.log(
        level,
        "mail %s, post_id=%s username=%s recipient=%s: %s",
        notification.kind,
        notification.post_id,
        notification.username,
        notification.recipient,
        detail,
    )
