"""What events cause here: deletions elsewhere take polls and votes along, and the end of a poll is told."""

from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import chain, islice
from threading import Event as Flag

from common.errors import Forbidden, NotFound, Unavailable
from common.jobs.producer import Producer
from common.jobs.queue import QueueUnavailable
from common.jobs.worker import Periodic, each, queues_on, work
from common.settings import Server
from polls_service.models import (
    EVENT,
    EVENTS_TUBE,
    TIMELINES_TUBE,
    USERS_TUBE,
    AccountCleared,
    AccountDeleted,
    Event,
    PollEnded,
    PollOver,
    PostDeleted,
)
from polls_service.store import PollsStore

OUTAGES = (QueueUnavailable, *PollsStore.outages)

# A token is refused everywhere two seconds after its user is deleted.
SETTLE_SECONDS = 10
LOOK_FOR_ENDINGS_SECONDS = 5
BACKFILL_SECONDS = 1
MAX_RECIPIENTS = 100


class Cascade:
    """Applies events, however often they come."""

    def __init__(self, store: PollsStore, own: Producer, users: Producer, timelines: Producer) -> None:
        self._store = store
        self._own = own
        self._users = users
        self._timelines = timelines

    def apply(self, event: Event) -> None:
        try:
            self._apply(event)
        except Unavailable:
            # There is more than one job may take.
            self._own.put(event)

    def _apply(self, event: Event) -> None:
        match event:
            case PostDeleted():
                with suppress(NotFound, Forbidden):
                    self._store.delete(event.poll_id, event.username)
            case AccountDeleted():
                self._clear(event)
            case PollOver():
                self._tell_of_end(event)

    def _clear(self, event: AccountDeleted) -> None:
        is_listed = self._store.backfill.is_done()
        self._store.delete_polls_of(event.username)
        if not event.is_settled:
            # A poll or a vote may be under way: what is not there yet is found then.
            settled = event.model_copy(update={"is_settled": True})
            self._own.put(settled, delay=SETTLE_SECONDS)
            return
        self._store.forget_votes_of(event.username)
        if not is_listed:
            # There may be polls and votes that are in no list yet.
            self._own.put(event, delay=SETTLE_SECONDS)
            return
        self._users.put(AccountCleared(username=event.username))

    def _tell_of_end(self, event: PollOver) -> None:
        """Tell the author and the voters. A deleted poll has neither."""
        # Reading it seals its counters: from then on, there are no more voters.
        for poll in self._store.polls([event.poll_id]):
            voters = (name for name in self._store.voters(poll.id) if name != poll.created_by)
            recipients = chain([poll.created_by], voters)
            while some := list(islice(recipients, MAX_RECIPIENTS)):
                ended = PollEnded(poll_id=poll.id, author=poll.created_by, recipients=some, at=event.at)
                self._timelines.put(ended)


def apply_events(store: PollsStore, beanstalkds: Sequence[Server], stop: Flag) -> None:
    """Apply events, and look for polls that have ended, until `stop` is set."""
    with ExitStack() as stack:
        own, users, timelines = (
            stack.enter_context(closing(Producer(beanstalkds, tube)))
            for tube in (EVENTS_TUBE, USERS_TUBE, TIMELINES_TUBE)
        )
        cascade = Cascade(store, own, users, timelines)
        endings = Periodic(LOOK_FOR_ENDINGS_SECONDS, partial(store.endings.queue_due, own), OUTAGES)
        backfill = Periodic(BACKFILL_SECONDS, store.backfill.step, OUTAGES)

        handle = each(lambda payload: cascade.apply(EVENT.validate_python(payload)))
        queues = stack.enter_context(queues_on(beanstalkds, EVENTS_TUBE))
        work(queues, handle, OUTAGES, stop, chores=[endings, backfill], ready=store.ping)
