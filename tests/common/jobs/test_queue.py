"""Jobs on a real beanstalkd, on its bad days too."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import greenstalk
import pytest
import server_processes
from pydantic import BaseModel, ValidationError

from common.jobs import queue as module
from common.jobs.queue import TTR_SECONDS, Envelope, Job, JobQueue, QueueCannotServe, QueueUnavailable
from common.telemetry import context
from tests.own_server import Own, OwnServer
from tests.polling import PATIENCE_SECONDS, eventually

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

numbers = count()


class Note(BaseModel):
    text: str


@pytest.fixture
def tube() -> str:
    return f"test.queue.{next(numbers)}"


@pytest.fixture
def queue(beanstalkd_port: int, tube: str) -> Iterator[JobQueue]:
    queue = JobQueue.connect("127.0.0.1", beanstalkd_port, tube)
    yield queue
    queue.close()


@pytest.fixture
def raw(beanstalkd_port: int, tube: str) -> Iterator[greenstalk.Client[bytes]]:
    """The same tube as anybody sees it who can reach beanstalkd."""
    with greenstalk.Client(("127.0.0.1", beanstalkd_port), encoding=None, use=tube, watch=tube) as client:
        yield client


@pytest.fixture
def beanstalkd(own: Own) -> OwnServer:
    """One to be killed, hung and started again."""
    server = own(server_processes.beanstalkd)
    server.start()
    return server


@pytest.fixture
def own_queue(beanstalkd: OwnServer) -> Iterator[JobQueue]:
    """A queue on the beanstalkd that the test owns."""
    queue = JobQueue.connect("127.0.0.1", beanstalkd.port, "test")
    yield queue
    queue.close()


def fails(call: Callable[[], object]) -> bool:
    with pytest.raises(QueueUnavailable):
        call()
    return True


def take(queue: JobQueue) -> Job:
    job = queue.reserve(timeout=10)
    assert job is not None
    return job


def test_a_job_carries_its_payload(queue: JobQueue) -> None:
    queue.put(Note(text="zażółć\n🙂"))

    assert take(queue).open() == {"text": "zażółć\n🙂"}


def test_a_job_carries_the_request_id_and_the_trace(queue: JobQueue) -> None:
    context.start("request-7", TRACE)
    queue.put(Note(text="hello"))
    context.start()

    take(queue).open()

    assert context.outgoing_headers() == {"X-Request-ID": "request-7", "traceparent": TRACE}


def test_jobs_come_in_the_order_in_which_they_were_put(queue: JobQueue) -> None:
    for number in range(5):
        queue.put(Note(text=str(number)))

    assert [take(queue).open()["text"] for _ in range(5)] == ["0", "1", "2", "3", "4"]


def test_tubes_do_not_see_each_others_jobs(queue: JobQueue, beanstalkd_port: int) -> None:
    other = JobQueue.connect("127.0.0.1", beanstalkd_port, "test.queue.other")
    other.put(Note(text="hello"))

    assert queue.reserve(timeout=0) is None
    other.delete(take(other))
    other.close()


def test_an_empty_tube_is_waited_at_for_as_long_as_asked(queue: JobQueue) -> None:
    started = time.monotonic()

    assert queue.reserve(timeout=1) is None
    assert time.monotonic() - started > 0.9


def test_a_deleted_job_is_gone(queue: JobQueue, raw: greenstalk.Client[bytes]) -> None:
    queue.put(Note(text="hello"))
    job = take(queue)

    queue.delete(job)

    with pytest.raises(greenstalk.NotFoundError):
        raw.peek(job.id)


def test_a_released_job_comes_again_after_its_delay(queue: JobQueue, raw: greenstalk.Client[bytes]) -> None:
    queue.put(Note(text="hello"))
    job = take(queue)

    queue.release(job, delay=1)

    assert raw.stats_job(job.id)["delay"] == 1
    assert take(queue) == job


def test_a_job_may_be_put_for_later(queue: JobQueue, raw: greenstalk.Client[bytes]) -> None:
    queue.put(Note(text="later"), delay=3600)

    assert queue.reserve(timeout=0) is None
    delayed = raw.peek_delayed()
    assert raw.stats_job(delayed)["delay"] == 3600
    raw.delete(delayed)


def test_a_touched_job_has_its_whole_time_again(queue: JobQueue, raw: greenstalk.Client[bytes]) -> None:
    queue.put(Note(text="slow"))
    job = queue.reserve(timeout=0)
    assert job
    eventually(lambda: raw.stats_job(job.id)["time-left"] < TTR_SECONDS - 1)

    queue.touch(job)

    assert raw.stats_job(job.id)["time-left"] >= TTR_SECONDS - 1
    queue.delete(job)


def test_a_buried_job_is_kept_and_can_be_kicked(queue: JobQueue, raw: greenstalk.Client[bytes]) -> None:
    queue.put(Note(text="hello"))
    job = take(queue)

    queue.bury(job)

    assert raw.peek_buried().id == job.id
    assert queue.reserve(timeout=0) is None
    raw.kick(1)
    assert take(queue) == job


def test_attempts_are_counted(queue: JobQueue) -> None:
    queue.put(Note(text="hello"))
    queue.release(take(queue), delay=0)

    assert queue.attempts(take(queue)) == 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"junk",
        b"\xff\xfe\x00",
        b"[]",
        b'{"version": 1}',
        b'{"version": 2, "request_id": "r", "traceparent": "", "payload": {}}',
        b'{"version": 1, "request_id": "r", "traceparent": "", "payload": []}',
        b'{"version": 1, "request_id": "a\\r\\nb: c", "traceparent": "", "payload": {}}',
        b'{"version": 1, "request_id": "r", "traceparent": "00-1", "payload": {}}',
        b'{"version": 1, "request_id": "r", "traceparent": "", "payload": {"a": "\\ud800"}}',
        b'{"version": 1, "request_id": "r", "traceparent": "", "payload": {}, "more": 1}',
        b'{"payload": ' + b"[" * 10_000,
    ],
    ids=lambda text: text[:60].decode("ascii", "replace"),
)
def test_junk_can_be_reserved_and_not_opened(
    queue: JobQueue, raw: greenstalk.Client[bytes], text: bytes
) -> None:
    raw.put(text)
    job = take(queue)

    with pytest.raises(ValidationError):
        job.open()


def test_what_is_put_outside_of_a_request_can_be_opened(queue: JobQueue) -> None:
    context.request_id.set("-")
    context.traceparent.set("")
    queue.put(Note(text="hello"))

    assert take(queue).open() == {"text": "hello"}


def envelope_of(size: int) -> Note:
    """A note that makes a job of so many bytes."""
    empty = Envelope(request_id="-", traceparent="", payload={"text": ""})
    return Note(text="x" * (size - len(empty.model_dump_json())))


def test_a_job_has_up_to_65535_bytes(queue: JobQueue) -> None:
    context.request_id.set("-")
    context.traceparent.set("")
    queue.put(envelope_of(65535))

    assert len(take(queue).text) == 65535


def test_a_job_that_is_too_big_does_not_harm_the_next_one(queue: JobQueue) -> None:
    context.request_id.set("-")
    context.traceparent.set("")
    with pytest.raises(ValueError, match="65536 bytes"):
        queue.put(envelope_of(65536))

    queue.put(Note(text="hello"))

    assert take(queue).open() == {"text": "hello"}


def test_what_becomes_of_a_job_that_another_worker_has_now_is_not_ours_to_say(
    queue: JobQueue, raw: greenstalk.Client[bytes], beanstalkd_port: int, tube: str
) -> None:
    raw.put(b"late")
    job = take(queue)
    queue.close()  # to the server, whoever held the job is dead
    with closing(JobQueue.connect("127.0.0.1", beanstalkd_port, tube)) as other:
        assert take(other) == job

        queue.delete(job)
        queue.release(job, delay=0)
        queue.bury(job)

        assert raw.stats_job(job.id)["state"] == "reserved"


def test_a_job_that_is_gone_has_no_attempts(queue: JobQueue) -> None:
    assert queue.attempts(Job(10**9, b"")) == 0


def test_threads_may_share_a_queue(queue: JobQueue) -> None:
    def put_and_take(number: int) -> str:
        queue.put(Note(text=str(number)))
        job = take(queue)
        queue.delete(job)
        return str(job.open()["text"])

    with ThreadPoolExecutor(20) as threads:
        taken = list(threads.map(put_and_take, range(400)))

    assert sorted(taken, key=int) == [str(number) for number in range(400)]


def test_building_a_queue_touches_no_network() -> None:
    queue = JobQueue.connect("host.invalid", 1, "test")

    queue.close()


def test_a_put_without_a_server_is_refused() -> None:
    queue = JobQueue.connect("127.0.0.1", server_processes.free_port(), "test")

    with pytest.raises(QueueUnavailable, match="Connection refused"):
        queue.put(Note(text="hello"))


def test_a_ping_tells_whether_the_server_is_there(queue: JobQueue) -> None:
    queue.ping()

    with pytest.raises(QueueUnavailable):
        JobQueue.connect("127.0.0.1", server_processes.free_port(), "test").ping()


@pytest.mark.kills
@pytest.mark.parametrize("is_connected", [False, True])
def test_a_put_to_a_server_that_hangs_fails_by_a_deadline(
    beanstalkd: OwnServer, own_queue: JobQueue, is_connected: bool
) -> None:
    if is_connected:
        own_queue.ping()
    beanstalkd.hang()

    with pytest.raises(QueueUnavailable, match="timed out"):
        own_queue.put(Note(text="hello"))


def test_a_caller_learns_within_two_seconds_that_there_is_no_answer() -> None:
    assert module.TIMEOUT_SECONDS < 2


@pytest.mark.kills
def test_threads_that_wait_for_a_server_that_hangs_wait_at_the_same_time(
    beanstalkd: OwnServer, own_queue: JobQueue
) -> None:
    own_queue.ping()
    beanstalkd.hang()
    started = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(fails, [lambda: own_queue.put(Note(text="hello"))] * 20))

    assert time.monotonic() - started < 20 * module.TIMEOUT_SECONDS / 3


@pytest.mark.kills
def test_one_thread_waits_for_a_server_that_is_known_to_hang(
    beanstalkd: OwnServer, own_queue: JobQueue
) -> None:
    own_queue.ping()
    beanstalkd.hang()
    with pytest.raises(QueueUnavailable):
        own_queue.ping()
    put = partial(own_queue.put, Note(text="hello"), seconds=2 * PATIENCE_SECONDS)
    with ThreadPoolExecutor(20) as threads:
        puts = [threads.submit(fails, put) for _ in range(20)]
        eventually(lambda: sum(put.done() for put in puts) == 19)
        beanstalkd.kill()

    assert all(put.result() for put in puts)


@pytest.mark.kills
def test_a_server_that_goes_on_after_a_pause_is_used_again(
    beanstalkd: OwnServer, own_queue: JobQueue
) -> None:
    own_queue.ping()
    beanstalkd.hang()
    with pytest.raises(QueueUnavailable):
        own_queue.reserve(timeout=0)
    beanstalkd.resume()

    own_queue.put(Note(text="hello"))

    assert take(own_queue).open() == {"text": "hello"}


@pytest.mark.kills
def test_a_job_that_was_put_survives_the_servers_death(beanstalkd: OwnServer, own_queue: JobQueue) -> None:
    own_queue.put(Note(text="first"))
    beanstalkd.kill()
    with pytest.raises(QueueUnavailable):
        own_queue.put(Note(text="second"))
    beanstalkd.start()

    assert take(own_queue).open() == {"text": "first"}


def test_a_server_that_drains_takes_no_job_and_says_why(beanstalkd: OwnServer, own_queue: JobQueue) -> None:
    own_queue.put(Note(text="before"))
    beanstalkd.signal(signal.SIGUSR1)

    for call in (own_queue.ping, lambda: own_queue.put(Note(text="hello"))):
        with pytest.raises(QueueCannotServe, match="is in drain mode"):
            call()
    assert take(own_queue).open() == {"text": "before"}


def test_a_server_that_accepts_only_smaller_jobs_says_why(own: Own) -> None:
    server = own(partial(server_processes.beanstalkd, options=("-z", "20")))
    server.start()
    with (
        closing(JobQueue.connect("127.0.0.1", server.port, "test")) as queue,
        pytest.raises(QueueCannotServe, match="smaller jobs"),
    ):
        queue.put(Note(text="hello"))


@contextmanager
def saying(*answers: bytes) -> Iterator[JobQueue]:
    """A queue on a server that gives these responses, one after the other, and closes."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            for answer in answers:
                connection.recv(1024)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        with closing(JobQueue.connect("127.0.0.1", listener.getsockname()[1], "test")) as queue:
            yield queue
        server.join()


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"USING", b"\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"OK many\r\n", b"-ERR what?\r\n"),
        *(b"BAD_FORMAT\r\n", b"UNKNOWN_COMMAND\r\n", b"INTERNAL_ERROR\r\n", b"OUT_OF_MEMORY\r\n"),
        *(b"NOT_FOUND\r\n", b"NOT_IGNORED\r\n", b"EXPECTED_CRLF\r\n", b"TIMED_OUT\r\n", b"\xff\r\n"),
    ],
)
def test_what_is_not_a_beanstalkd_counts_as_away(answer: bytes) -> None:
    with saying(answer) as queue, pytest.raises(QueueUnavailable):
        queue.ping()


OPENED = (b"USING test\r\n", b"WATCHING 2\r\n", b"WATCHING 1\r\n")
STRANGE = "does not respond as a beanstalkd does"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"DRAINING\r\n", "is in drain mode"),
        (b"OUT_OF_MEMORY\r\n", "is out of memory"),
        (b"BURIED 7\r\n", "is out of memory"),
        (b"INTERNAL_ERROR\r\n", "reports an internal error"),
        (b"JOB_TOO_BIG\r\n", "accepts only smaller jobs: raise its -z"),
        *((word + b"\r\n", STRANGE) for word in (b"BAD_FORMAT", b"UNKNOWN_COMMAND", b"EXPECTED_CRLF")),
        *((word + b"\r\n", STRANGE) for word in (b"NOT_FOUND", b"DEADLINE_SOON", b"SOMETHING_NEW")),
        *((b"INSERTED", STRANGE), (b"INSERTED x\r\n", STRANGE), (b"INSERTED\r\n", STRANGE)),
    ],
)
def test_a_put_that_is_refused_is_an_outage_with_its_reason(answer: bytes, reason: str) -> None:
    with saying(*OPENED, answer) as queue, pytest.raises(QueueCannotServe) as refused:
        queue.put(Note(text="hello"))

    assert str(refused.value) == reason
    assert isinstance(refused.value, JobQueue.outages)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"OUT_OF_MEMORY\r\n", b"INTERNAL_ERROR\r\n", b"UNKNOWN_COMMAND\r\n", b"OK 5\r\n---\n \r\n"),
        *(b"OK 4\r\n---\n\r\n", b"OK 99999999999999999999\r\n", b"OK 999999999999999\r\n", b"OK -7\r\n"),
    ],
)
def test_a_job_whose_state_is_not_told_is_an_outage(answer: bytes) -> None:
    with saying(*OPENED, answer) as queue, pytest.raises(QueueCannotServe):
        queue.attempts(Job(7, b""))


def test_a_reserve_before_a_deadline_finds_no_job() -> None:
    with saying(*OPENED, b"DEADLINE_SOON\r\n") as queue:
        assert queue.reserve(timeout=0) is None


@pytest.mark.kills
def test_a_failed_connection_leaves_nothing_open(beanstalkd: OwnServer, own_queue: JobQueue) -> None:
    beanstalkd.hang()
    before = len(list(Path("/dev/fd").iterdir()))

    for _ in range(5):
        fails(lambda: own_queue.put(Note(text="hello"), seconds=0.05))

    assert len(list(Path("/dev/fd").iterdir())) <= before
