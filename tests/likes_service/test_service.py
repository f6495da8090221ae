"""What likes are about, and that every order of crashes comes to the same end."""

import logging
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

import greenstalk
import httpx
import pytest
import server_processes

from common.errors import Unavailable
from common.jobs.queue import JobQueue, QueueUnavailable
from common.telemetry import context
from likes_service import service
from likes_service.mailer import MailServer, MailServerUnavailable
from likes_service.models import NOTIFICATION, Liked, LikeUndone, ValidateLike
from likes_service.service import OVERDUE_AFTER, PAUSE_SECONDS, Likes, LikeValidator, Notifier
from likes_service.store import LikesStore
from tests.clock import Clock
from tests.likes_service.conftest import LATER, NOW
from tests.polling import PATIENCE_SECONDS, eventually
from tests.tubes import take_all

TEXT = "Hello, world"
AGES_AGO = datetime.now(UTC) - timedelta(days=1)


class Crash(Exception):
    """The process is dead."""


class CrashesOnce:
    """Does what the real thing does, but dies once, right before or right after one verb."""

    def __init__(self, real, verb, moment):
        self._real, self._verb, self._moment = real, verb, moment

    def __getattr__(self, name):
        method = getattr(self._real, name)
        if name != self._verb:
            return method

        def die(*given):
            self._verb = None
            if self._moment == "after":
                method(*given)
            raise Crash

        return die


def recorded(post_id, username="bob"):
    return ValidateLike(post_id=post_id, username=username)


def liked(post_id, username="bob"):
    return Liked(post_id=post_id, username=username, author="alice", text=TEXT)


class Broken:
    """A queue whose server hangs, but for the waiting."""

    def __init__(self):
        self.tried = 0

    def put(self, payload):
        self.tried += 1
        raise QueueUnavailable


@pytest.fixture
def taking():
    """Makes what takes likes: `with taking(store, queue) as likes`; in the end what it had to put is put."""

    @contextmanager
    def take(*given):
        likes = Likes(*given)
        yield likes
        likes.close()

    return take


def test_a_like_is_put_on_the_queue(store, queues, taking, post_id):
    queue = queues()

    with taking(store, queue) as likes:
        likes.like(post_id, "bob")

    assert take_all(queue) == [{"post_id": str(post_id), "username": "bob"}]


def test_a_like_again_is_not_put_on_the_queue_again(store, queues, taking, post_id):
    queue = queues()

    with taking(store, queue) as likes:
        for _ in range(3):
            likes.like(post_id, "bob")

    assert len(take_all(queue)) == 1


def test_a_job_has_the_request_id_of_its_like(store, queues, taking, post_id):
    queue = queues()

    with taking(store, queue) as likes:
        context.start("request-7")
        likes.like(post_id, "bob")
        context.start("request-8")

    assert b'"request-7"' in queue.reserve(timeout=1).text


def test_a_like_counts_while_the_queue_is_away_and_stays_owed(store, taking, post_id):
    with taking(store, Broken()) as likes:
        likes.like(post_id, "bob")

    assert store.count(post_id).count == 1
    assert store.pending(post_id, "bob")


def test_a_crash_before_the_put_leaves_the_like_to_the_sweep(store, queues, taking, post_id):
    with taking(store, CrashesOnce(queues(), "put", "before")) as likes:
        likes.like(post_id, "bob")

    assert store.count(post_id).count == 1
    assert store.claim_overdue(datetime.now(UTC) + OVERDUE_AFTER, 10) == [recorded(post_id)]


def test_after_a_put_that_failed_no_other_is_tried_for_a_while(store, taking, post_id):
    queue = Broken()

    with taking(store, queue, Clock()) as likes:
        for name in ("bob", "carol", "dave"):
            likes.like(post_id, name)

    assert queue.tried == 1


def test_after_a_while_the_queue_is_tried_again(store, taking, post_id):
    queue, clock = Broken(), Clock()
    with taking(store, queue, clock) as likes:
        likes.like(post_id, "bob")
        eventually(likes._is_paused)
        clock.now += PAUSE_SECONDS

        likes.like(post_id, "carol")

    assert queue.tried == 2


def test_what_is_not_even_tried_is_overdue_at_once(store, taking, post_id):
    with taking(store, Broken(), Clock()) as likes:
        likes.like(post_id, "bob")
        eventually(likes._is_paused)

        likes.like(post_id, "carol")

    assert store.claim_overdue(datetime.now(UTC), 10) == [recorded(post_id, "carol")]


def test_a_queue_that_hangs_holds_up_no_request(store, taking, post_id, monkeypatch):
    monkeypatch.setattr("common.jobs.queue.TIMEOUT_SECONDS", 2 * PATIENCE_SECONDS)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        queue = JobQueue.connect("127.0.0.1", hung.getsockname()[1], "likes.test")
        with taking(store, queue) as likes:
            for number in range(32):
                likes.like(post_id, f"user{number}")

            assert store.count(post_id).count == 32
            hung.close()


@pytest.fixture
def validations(queues):
    return queues()


@pytest.fixture
def notifications(queues):
    return queues()


@pytest.fixture
def events(queues):
    return queues()


@pytest.fixture
def validation(store, timelines_client, validations, notifications, events):
    return LikeValidator(store, timelines_client, validations, notifications, events)


@pytest.fixture
def post(timelines, post_id):
    """A post of alice's."""
    body = {"id": str(post_id), "username": "alice", "text": TEXT, "created_at": "2026-05-04T03:02:01Z"}
    timelines.answers[f"/posts/id/{post_id}"] = httpx.Response(200, json=body)
    return post_id


def test_the_author_of_a_post_that_exists_is_told(store, validation, notifications, post):
    store.like(post, "bob", NOW, LATER)

    validation.validate(recorded(post))

    assert take_all(notifications) == [liked(post).model_dump(mode="json")]


def test_a_like_of_a_post_that_exists_stands_and_is_settled(store, validation, post):
    store.like(post, "bob", NOW, LATER)

    validation.validate(recorded(post))

    assert store.count(post).count == 1
    assert store.pending(post, "bob") is None


def told(events):
    """The events that the timelines service gets."""
    return [(event["kind"], event["username"], event["at"]) for event in take_all(events)]


def _at(moment):
    return moment.isoformat().replace("+00:00", "Z")


def test_timelines_are_told_of_a_like_of_a_post_that_exists(store, validation, events, post):
    store.like(post, "bob", NOW, LATER)

    validation.validate(recorded(post))

    assert told(events) == [("liked", "bob", _at(NOW))]


def test_timelines_are_not_told_of_a_like_of_a_missing_post(store, validation, events, post_id):
    store.like(post_id, "bob", NOW, LATER)

    validation.validate(recorded(post_id))

    assert told(events) == []


def test_timelines_are_told_of_an_unlike_with_a_later_time(store, queues, taking, validation, events, post):
    queue = queues()
    store.like(post, "bob", NOW, LATER)
    with taking(store, queue) as likes:
        likes.unlike(post, "bob")
        likes.unlike(post, "bob")
    [job] = take_all(queue)

    validation.validate(ValidateLike.model_validate(job))

    assert told(events) == [("unliked", "bob", _at(NOW + timedelta(microseconds=1)))]
    assert store.claim_overdue(LATER + timedelta(days=1), 10) == []


def test_an_unlike_that_was_never_queued_is_left_to_the_sweep(store, taking, validation, validations, post):
    store.like(post, "bob", NOW, LATER)
    with taking(store, Broken(), Clock()) as likes:
        likes.like(post, "carol")
        eventually(likes._is_paused)
        likes.unlike(post, "bob")

    validation.sweep()

    assert [job["username"] for job in take_all(validations) if "unliked_at" in job] == ["bob"]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["put", "complete_unlike"])
def test_a_crash_while_an_unlike_is_told_ends_with_it_told(
    store, timelines_client, validations, notifications, events, post, step, moment
):
    store.like(post, "bob", NOW, LATER)
    _, at = store.unlike(post, "bob", LATER)
    unlike = ValidateLike(post_id=post, username="bob", unliked_at=at)
    crashing = LikeValidator(
        CrashesOnce(store, step, moment),
        timelines_client,
        validations,
        notifications,
        CrashesOnce(events, step, moment),
    )
    with pytest.raises(Crash):
        crashing.validate(unlike)

    crashing.validate(unlike)

    assert {kind for kind, _, _ in told(events)} == {"unliked"}
    assert store.claim_overdue(LATER, 10) == []


def test_nobody_is_told_that_they_like_their_own_post(store, validation, notifications, post, caplog):
    caplog.set_level(logging.INFO)
    store.like(post, "alice", NOW, LATER)

    validation.validate(recorded(post, "alice"))

    assert take_all(notifications) == []
    assert store.pending(post, "alice") is None
    assert f"post_id={post} username=alice recipient=alice: not sent, it is their own post" in caplog.text


def test_a_like_of_a_missing_post_is_taken_back_and_its_liker_told(store, validation, notifications, post_id):
    store.like(post_id, "bob", NOW, LATER)

    validation.validate(recorded(post_id))

    assert (store.count(post_id).count, store.liked_by("bob", 1, None), store.popular(1, None)) == (0, [], [])
    assert take_all(notifications) == [LikeUndone(post_id=post_id, username="bob").model_dump(mode="json")]
    assert store.pending(post_id, "bob") is None


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_failing_is_not_missing(store, timelines, validation, notifications, post_id, status):
    store.like(post_id, "bob", NOW, LATER)
    timelines.otherwise = httpx.Response(status)

    with pytest.raises(Unavailable):
        validation.validate(recorded(post_id))

    assert store.count(post_id).count == 1
    assert store.pending(post_id, "bob")
    assert take_all(notifications) == []


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.ReadError])
def test_unreachable_is_not_missing(store, timelines_client, validation, notifications, post_id, error):
    store.like(post_id, "bob", NOW, LATER)

    def fail(request):
        raise error("away", request=request)

    timelines_client._timelines._transport = httpx.MockTransport(fail)

    with pytest.raises(Unavailable):
        validation.validate(recorded(post_id))

    assert store.count(post_id).count == 1
    assert store.pending(post_id, "bob")
    assert take_all(notifications) == []


def test_a_like_that_its_user_took_back_is_nobodys_business(
    store, timelines, validation, notifications, post
):
    store.like(post, "bob", NOW, LATER)
    store.unlike(post, "bob", LATER)

    validation.validate(recorded(post))

    assert timelines.requests == []
    assert take_all(notifications) == []


def test_what_is_settled_is_not_looked_at_again(store, timelines, validation, notifications, post):
    store.like(post, "bob", NOW, LATER)

    for _ in range(3):
        validation.validate(recorded(post))

    assert len(timelines.requests) == 1
    assert len(take_all(notifications)) == 1


def test_an_unlike_during_the_validation_means_no_word_of_a_like_taken_back(
    store, timelines, timelines_client, validations, notifications, events, post_id
):
    store.like(post_id, "bob", NOW, LATER)

    def change_of_mind(request):
        store.unlike(post_id, "bob", LATER)
        return httpx.Response(404)

    timelines_client._timelines._transport = httpx.MockTransport(change_of_mind)

    LikeValidator(store, timelines_client, validations, notifications, events).validate(recorded(post_id))

    assert take_all(notifications) == []
    assert store.pending(post_id, "bob") is None


def test_a_like_made_anew_during_the_validation_is_still_owed_its_own(
    store, timelines_client, validations, notifications, events, post_id
):
    store.like(post_id, "bob", NOW, LATER)

    def change_of_mind_twice(request):
        store.unlike(post_id, "bob", LATER)
        store.like(post_id, "bob", LATER, LATER)
        return httpx.Response(404)

    timelines_client._timelines._transport = httpx.MockTransport(change_of_mind_twice)

    LikeValidator(store, timelines_client, validations, notifications, events).validate(recorded(post_id))

    assert store.count(post_id).count == 1
    assert store.pending(post_id, "bob").liked_at == LATER


def mailed(inbox, notifier, notifications):
    """Who gets mails by all these notices, and about what."""
    for notification in take_all(notifications):
        notifier.notify(NOTIFICATION.validate_python(notification))
    return [(mail["To"], mail["Subject"]) for mail in inbox.mails]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["pending", "post", "put", "complete"])
def test_a_crash_in_the_validation_of_a_post_that_exists_ends_in_one_mail(
    store,
    timelines_client,
    validations,
    notifications,
    events,
    notification,
    addresses,
    inbox,
    post,
    step,
    moment,
):
    store.like(post, "bob", NOW, LATER)
    crashing = LikeValidator(
        CrashesOnce(store, step, moment),
        CrashesOnce(timelines_client, step, moment),
        validations,
        CrashesOnce(notifications, step, moment),
        CrashesOnce(events, step, moment),
    )
    with pytest.raises(Crash):
        crashing.validate(recorded(post))
    with suppress(Crash):
        crashing.validate(recorded(post))

    crashing.validate(recorded(post))

    assert set(told(events)) == {("liked", "bob", _at(NOW))}
    assert store.count(post).count == 1
    assert mailed(inbox, notification, notifications) == [("alice@example.com", "bob likes your post")]
    assert store.pending(post, "bob") is None


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", ["pending", "post", "undo", "put", "complete"])
def test_a_crash_in_the_validation_of_a_missing_post_ends_in_one_removal_and_one_mail(
    store,
    timelines_client,
    validations,
    notifications,
    events,
    notification,
    addresses,
    inbox,
    post_id,
    step,
    moment,
):
    store.like(post_id, "bob", NOW, LATER)
    store.like(post_id, "carol", NOW, LATER)
    crashing = LikeValidator(
        CrashesOnce(store, step, moment),
        CrashesOnce(timelines_client, step, moment),
        validations,
        CrashesOnce(notifications, step, moment),
        events,
    )
    with pytest.raises(Crash):
        crashing.validate(recorded(post_id))

    crashing.validate(recorded(post_id))

    assert store.count(post_id).count == 1
    assert mailed(inbox, notification, notifications) == [("bob@example.com", "Your like was taken back")]
    assert store.pending(post_id, "bob") is None


def test_the_sweep_puts_again_what_is_overdue(store, validation, validations, post_id):
    store.like(post_id, "bob", AGES_AGO, AGES_AGO)

    validation.sweep()

    assert take_all(validations) == [recorded(post_id).model_dump(mode="json")]


def test_the_sweep_goes_on_until_nothing_is_overdue(store, validation, validations, post_id, monkeypatch):
    monkeypatch.setattr(service, "SWEEP_BATCH", 2)
    for number in range(5):
        store.like(post_id, f"user{number}", AGES_AGO, AGES_AGO)

    validation.sweep()

    assert len(take_all(validations)) == 5


def test_the_sweep_puts_nothing_twice_in_a_row(store, validation, validations, post_id):
    store.like(post_id, "bob", AGES_AGO, AGES_AGO)

    for _ in range(3):
        validation.sweep()

    assert len(take_all(validations)) == 1


def test_the_sweep_leaves_alone_what_is_not_overdue(store, queues, validation, validations, post_id, taking):
    with taking(store, queues()) as likes:
        likes.like(post_id, "bob")

    validation.sweep()

    assert take_all(validations) == []


def test_the_sweep_takes_nothing_while_the_queue_is_away(store, timelines_client, post_id):
    store.like(post_id, "bob", AGES_AGO, AGES_AGO)
    away = JobQueue.connect("127.0.0.1", server_processes.free_port(), "likes.test")

    with pytest.raises(QueueUnavailable):
        LikeValidator(store, timelines_client, away, away, away).sweep()

    assert len(store.claim_overdue(datetime.now(UTC), 10)) == 1


@pytest.fixture
def deferred(queues):
    """Where deferred mails wait."""
    return queues()


@pytest.fixture
def notifier(store, users_client, mail_server, deferred):
    """Makes a notifier whose deferred mails are due at once."""

    def make(**other):
        given = {"store": store, "users": users_client, "mail_server": mail_server, "queue": deferred}
        return Notifier(**given | {"first_deferral": timedelta(0)} | other)

    return make


@pytest.fixture
def notification(notifier):
    return notifier()


@pytest.fixture
def addresses(users):
    for name in ("alice", "bob"):
        body = {"username": name, "email": f"{name}@example.com"}
        users.answers[f"/users/{name}"] = httpx.Response(200, json=body)
    return users.answers


@pytest.fixture
def like(store, post_id, addresses):
    """bob's like, of a post of alice's."""
    store.like(post_id, "bob", NOW, LATER)
    return liked(post_id)


def test_the_author_is_mailed_who_likes_which_post(notification, inbox, like):
    notification.notify(like)

    (mail,) = inbox.mails
    assert mail["To"] == "alice@example.com"
    assert mail["Subject"] == "bob likes your post"
    assert mail.get_content().splitlines() == ["bob likes your post:", "", TEXT]


def test_a_liker_is_mailed_that_the_like_was_taken_back(notification, inbox, addresses, post_id):
    notification.notify(LikeUndone(post_id=post_id, username="bob"))

    (mail,) = inbox.mails
    assert mail["To"] == "bob@example.com"
    assert str(post_id) in mail.get_content()


def test_a_like_that_was_taken_back_is_not_mailed(store, notification, inbox, like, post_id):
    store.unlike(post_id, "bob", LATER)

    notification.notify(like)

    assert inbox.mails == []


def test_a_like_is_mailed_once_whatever_comes_twice(store, notification, inbox, like, post_id):
    notification.notify(like)
    notification.notify(like)
    store.unlike(post_id, "bob", LATER)
    store.like(post_id, "bob", LATER, LATER)

    notification.notify(like)

    assert len(inbox.mails) == 1


def test_a_like_is_mailed_once_by_many_workers(redis_url, notifier, inbox, like):
    store = LikesStore.connect(redis_url, threads=8)
    with ThreadPoolExecutor(8) as threads:
        workers = [notifier(store=store) for _ in range(8)]
        list(threads.map(lambda worker: worker.notify(like), workers))
    store.close()

    assert len(inbox.mails) == 1


def test_an_author_without_an_address_is_left_alone(notification, addresses, inbox, like):
    addresses["/users/alice"] = httpx.Response(200, json={"username": "alice", "email": None})

    notification.notify(like)

    assert inbox.mails == []


def test_a_mail_waits_for_the_users_service(notification, addresses, inbox, like):
    there = addresses.pop("/users/alice")
    addresses["/users/alice"] = httpx.Response(503)
    with pytest.raises(Unavailable):
        notification.notify(like)
    addresses["/users/alice"] = there

    notification.notify(like)

    assert len(inbox.mails) == 1


def test_a_mail_waits_for_the_mail_server(notifier, notification, inbox, like):
    away = MailServer("127.0.0.1", server_processes.free_port(), "microblog@localhost")
    with pytest.raises(MailServerUnavailable):
        notifier(mail_server=away).notify(like)

    notification.notify(like)

    assert len(inbox.mails) == 1


@pytest.mark.parametrize("place", ["to_sender", "to_recipient", "to_mail"])
def test_a_deferred_mail_is_sent_when_its_time_comes(notification, deferred, inbox, like, place):
    setattr(inbox, place, "451 later")
    notification.notify(like)
    [job] = take_all(deferred)
    setattr(inbox, place, "250 OK")

    notification.notify(NOTIFICATION.validate_python(job))

    assert [mail["To"] for mail in inbox.mails] == ["alice@example.com"]


def test_a_deferred_mail_of_a_like_that_was_removed_is_not_sent(
    store, notification, deferred, inbox, like, post_id
):
    inbox.to_recipient = "451 later"
    notification.notify(like)
    [job] = take_all(deferred)
    store.unlike(post_id, "bob", LATER)
    inbox.to_recipient = "250 OK"

    notification.notify(NOTIFICATION.validate_python(job))

    assert inbox.mails == []


def test_a_mail_that_cannot_be_put_off_is_tried_again_as_in_an_outage(notifier, inbox, like):
    away = JobQueue.connect("127.0.0.1", server_processes.free_port(), "likes.test")
    inbox.to_mail = "451 later"
    with pytest.raises(QueueUnavailable):
        notifier(queue=away).notify(like)
    inbox.to_mail = "250 OK"

    notifier().notify(like)

    assert len(inbox.mails) == 1


@pytest.fixture
def delays(beanstalkd_port, deferred):
    """The delays, in seconds, of the mails that wait; looking takes them away."""

    def delays():
        with greenstalk.Client(("127.0.0.1", beanstalkd_port), use=deferred.tube) as client:
            found = []
            with suppress(greenstalk.NotFoundError):
                while True:
                    job = client.peek_delayed()
                    found.append(client.stats_job(job)["delay"])
                    client.delete(job)
        return found

    return delays


@pytest.mark.parametrize(
    ("waited", "pause"),
    [
        (timedelta(0), timedelta(minutes=1)),
        (timedelta(minutes=10), timedelta(minutes=10)),
        (timedelta(hours=1), timedelta(hours=1)),
        (timedelta(days=1), timedelta(hours=4)),
        (timedelta(days=3, hours=23), timedelta(hours=4)),
    ],
)
def test_a_mail_waits_for_as_long_as_it_has_waited_already(notifier, delays, inbox, like, waited, pause):
    inbox.to_recipient = "451 later"
    since = datetime.now(UTC) - waited if waited else None

    notifier(first_deferral=timedelta(minutes=1)).notify(like.model_copy(update={"deferred_since": since}))

    [delay] = delays()
    assert delay == pytest.approx(pause.total_seconds(), abs=PATIENCE_SECONDS)


def test_a_mail_is_given_up_after_four_days(notification, deferred, inbox, like, caplog):
    inbox.to_recipient = "451 later"
    since = datetime.now(UTC) - timedelta(days=4, seconds=1)

    notification.notify(like.model_copy(update={"deferred_since": since}))

    assert take_all(deferred) == []
    assert "given up" in caplog.text


def test_a_mail_that_another_thread_has_in_hand_waits(notification, deferred, inbox, like):
    take = inbox.handle_DATA

    async def take_while_it_comes_again(server, session, envelope):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(notification.notify, like).result(PATIENCE_SECONDS)
        return await take(server, session, envelope)

    inbox.handle_DATA = take_while_it_comes_again
    notification.notify(like)

    assert len(inbox.mails) == 1
    assert len(take_all(deferred)) == 1


def test_an_address_on_file_that_no_mail_can_have_costs_one_refusal(
    notification, addresses, inbox, like, caplog
):
    address = "=?utf-8?q?victim=40other.example=2C?=@example.com"
    addresses["/users/alice"] = httpx.Response(200, json={"username": "alice", "email": address})

    notification.notify(like)

    assert inbox.mails == []
    assert [record.levelname for record in caplog.records if "not tried again" in record.message] == [
        "WARNING"
    ]


def outcomes(caplog, post_id):
    """What the log says became of the mails about this post."""
    return [
        record.getMessage().partition(": ")[2]
        for record in caplog.records
        if f"mail liked, post_id={post_id} username=bob recipient=alice: " in record.getMessage()
    ]


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_the_log_says_that_a_mail_is_sent_and_once_only(notification, like, log, post_id):
    for _ in range(2):
        notification.notify(like)

    assert outcomes(log, post_id) == ["sent", "not sent, it was mailed already"]


def test_the_log_says_that_a_mail_has_no_address(notification, addresses, like, log, post_id):
    addresses["/users/alice"] = httpx.Response(200, json={"username": "alice", "email": None})

    notification.notify(like)

    assert outcomes(log, post_id) == ["not sent, there is no address"]


def test_a_user_who_wants_no_mail_gets_none(notification, addresses, like, log, post_id):
    profile = {"email": "alice@example.com", "mail_notifications": False}
    addresses["/users/alice"] = httpx.Response(200, json=profile)

    notification.notify(like)

    assert outcomes(log, post_id) == ["not sent, the user wants no mail"]


def test_an_author_gets_no_mail_of_a_hidden_users_like(notification, addresses, like, log, post_id):
    addresses["/users/alice/home-sources"] = httpx.Response(200, json={"followees": [], "hidden": ["bob"]})

    notification.notify(like)

    assert outcomes(log, post_id) == ["not sent, they are muted or blocked"]


def test_the_log_says_that_a_like_was_removed_before_its_mail(store, notification, like, log, post_id):
    store.unlike(post_id, "bob", LATER)

    notification.notify(like)

    assert outcomes(log, post_id) == ["not sent, the like was removed"]


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ("550 5.1.1 no such user", "not tried again, RCPT: 550 5.1.1 no such user"),
        ("451 4.7.1 greylisted", "deferred until .+00:00, RCPT: 451 4.7.1 greylisted"),
    ],
)
def test_the_log_says_why_a_mail_is_not_taken(notification, inbox, like, log, post_id, reply, outcome):
    inbox.to_recipient = reply

    notification.notify(like)

    [said] = outcomes(log, post_id)
    assert re.fullmatch(outcome, said)


@pytest.mark.parametrize("place", ["to_recipient", "to_mail"])
def test_a_mail_that_is_refused_is_not_tried_again(notification, inbox, like, place):
    setattr(inbox, place, "550 never")
    notification.notify(like)
    setattr(inbox, place, "250 OK")

    notification.notify(like)

    assert inbox.mails == []


def test_a_mail_in_doubt_is_not_tried_again(notification, inbox, like):
    take = inbox.handle_DATA

    async def break_off(server, session, envelope):
        await take(server, session, envelope)
        server.transport.abort()

    inbox.handle_DATA = break_off
    notification.notify(like)

    notification.notify(like)

    assert len(inbox.mails) == 1


@pytest.mark.parametrize("place", ["to_sender", "to_recipient", "to_mail"])
@pytest.mark.parametrize("code", ["451", "550"])
def test_no_log_line_says_an_address_or_a_text(notification, inbox, like, caplog, place, code):
    caplog.set_level(logging.DEBUG)
    setattr(inbox, place, f"{code} alice@example.com says no")
    try:
        notification.notify(like)
    except MailServerUnavailable as exc:
        logging.getLogger("worker").warning("%r", exc)
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("mail.")]

    assert len(ours) >= 1
    assert not any("alice@example.com" in line or TEXT in line for line in ours)


@pytest.mark.parametrize(
    ("step", "moment", "mails"),
    [
        ("recipient", "before", 1),
        ("recipient", "after", 1),
        ("claim", "before", 1),
        # Nobody can know whether the mail is out: better none than two.
        ("claim", "after", 0),
    ],
)
def test_a_crash_in_the_notification_never_doubles_a_mail(
    store, users_client, notifier, inbox, like, step, moment, mails
):
    crashing = notifier(store=CrashesOnce(store, step, moment), users=CrashesOnce(users_client, step, moment))
    with pytest.raises(Crash):
        crashing.notify(like)

    notifier().notify(like)

    assert len(inbox.mails) == mails


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_claim_whose_answer_was_lost_ends_in_one_mail(store, notifier, inbox, like, moment):
    notification = notifier(store=CrashesOnce(store, "claim", moment))
    with pytest.raises(Crash):
        notification.notify(like)

    for _ in range(2):
        notification.notify(like)

    assert len(inbox.mails) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_mail_that_waits_is_sent_although_its_claim_could_not_be_released(
    store, notifier, inbox, like, moment
):
    notification = notifier(store=CrashesOnce(store, "release", moment))
    inbox.to_mail = "451 later"
    with pytest.raises(Crash):
        notification.notify(like)
    inbox.to_mail = "250 OK"

    for _ in range(2):
        notification.notify(like)

    assert len(inbox.mails) == 1
