"""The loop that works jobs, on a real Beanstalkd."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread

import greenstalk
import pytest
import server_processes
from pydantic import BaseModel

from common.jobs import worker
from common.jobs.queue import Job, JobQueue
from common.jobs.worker import Periodic, work
from tests import tubes
from tests.own_server import Own
from tests.polling import PATIENCE_SECONDS, eventually

TUBE = "test.worker"
ROOT = Path(__file__).parents[3]


class Number(BaseModel):
    number: int


class Away(Exception):
    pass


@pytest.fixture
def tube(beanstalkd_port: int) -> Iterator[greenstalk.Client[bytes]]:
    with greenstalk.Client(("127.0.0.1", beanstalkd_port), encoding=None, use=TUBE, watch=TUBE) as client:
        yield client
        client.kick(1000)
        tubes.clear(client)


@pytest.fixture
def queue(beanstalkd_port: int, tube: greenstalk.Client[bytes]) -> Iterator[JobQueue]:
    queue = JobQueue.connect("127.0.0.1", beanstalkd_port, TUBE)
    yield queue
    queue.close()


Handle = Callable[[Sequence[Job]], None]


@pytest.fixture
def running(queue: JobQueue) -> Iterator[Callable[..., None]]:
    """Work jobs in a thread until the test is over."""
    stop = Event()
    threads: list[Thread] = []

    def run(handle: Handle, batch: int = 1) -> None:
        threads.append(Thread(target=work, args=([queue], handle, (Away,), stop, batch)))
        threads[-1].start()

    yield run
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def _is_empty(tube: greenstalk.Client[bytes]) -> bool:
    return tubes.is_empty(tube, TUBE, states=(*tubes.UNFINISHED, "buried"))


def _number(job: Job) -> int:
    return Number.model_validate(job.open()).number


def test_jobs_are_handled_in_batches_and_deleted(queue: JobQueue, tube, running) -> None:
    for number in range(25):
        queue.put(Number(number=number))
    batches: list[list[int]] = []
    running(lambda jobs: batches.append([_number(job) for job in jobs]), batch=10)

    eventually(lambda: len(batches) == 3 and _is_empty(tube))

    assert [number for numbers in batches for number in numbers] == list(range(25))


def test_an_outage_is_tried_again_and_never_buried(
    queue: JobQueue, tube, running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_OUTAGE_DELAY_SECONDS", 0)
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (0, 0))
    tries: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        tries.append(_number(jobs[0]))
        if len(tries) <= worker.MAX_ATTEMPTS + 2:
            raise Away

    queue.put(Number(number=1))
    running(handle)

    eventually(lambda: len(tries) == worker.MAX_ATTEMPTS + 3 and _is_empty(tube))


def test_an_outage_uses_up_no_attempt(
    queue: JobQueue, tube, running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_OUTAGE_DELAY_SECONDS", 0)
    monkeypatch.setattr(worker, "MAX_DELAY_SECONDS", 0)
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (0, 0))
    tries: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        tries.append(_number(jobs[0]))
        raise Away if len(tries) <= worker.MAX_ATTEMPTS else RuntimeError("a bug")

    queue.put(Number(number=1))
    running(handle)

    eventually(lambda: tube.stats_tube(TUBE)["current-jobs-buried"] == 1)
    assert len(tries) == 2 * worker.MAX_ATTEMPTS


def test_no_job_is_reserved_until_the_worker_is_ready_again(
    queue: JobQueue, tube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (0, 0))
    monkeypatch.setattr(worker, "RECONNECT_SECONDS", (0, 0))
    for number in range(2):
        queue.put(Number(number=number))
    stop = Event()
    handled: list[int] = []
    readiness: list[None] = []

    def handle(jobs: Sequence[Job]) -> None:
        handled.append(_number(jobs[0]))
        raise Away

    def ready() -> None:
        readiness.append(None)
        if len(readiness) == 20:
            stop.set()
        raise Away

    work([queue], handle, (Away,), stop, ready=ready)

    assert handled == [0]


def test_a_job_that_keeps_failing_is_buried_after_its_attempts(
    queue: JobQueue, tube, running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_DELAY_SECONDS", 0)
    tries: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        tries.append(_number(jobs[0]))
        raise RuntimeError("a bug")

    queue.put(Number(number=1))
    running(handle)

    eventually(lambda: tube.stats_tube(TUBE)["current-jobs-buried"] == 1)
    assert len(tries) == worker.MAX_ATTEMPTS


def _vanish_with(port: int, jobs: int) -> None:
    """As a worker does that is killed with so many in hand."""
    with greenstalk.Client(("127.0.0.1", port), encoding=None, watch=TUBE) as killed:
        for _ in range(jobs):
            killed.reserve(timeout=1)


def test_what_a_killed_worker_had_in_hand_is_handled_job_by_job(
    queue: JobQueue, tube, running, beanstalkd_port: int
) -> None:
    for number in range(4):
        queue.put(Number(number=number))
    _vanish_with(beanstalkd_port, jobs=2)
    batches: list[list[int]] = []
    running(lambda jobs: batches.append([_number(job) for job in jobs]), batch=10)

    eventually(lambda: _is_empty(tube))

    assert batches == [[0], [1], [2, 3]]


def test_a_job_that_ends_every_worker_is_buried_in_the_end_and_alone(
    queue: JobQueue, tube, running, beanstalkd_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    queue.put(Number(number=1))
    for _ in range(worker.MAX_ATTEMPTS):
        eventually(lambda: tube.stats_tube(TUBE)["current-jobs-ready"] == 1)
        _vanish_with(beanstalkd_port, jobs=1)
    queue.put(Number(number=2))
    handled: list[int] = []
    running(lambda jobs: handled.extend(map(_number, jobs)), batch=10)

    eventually(lambda: handled == [2] and tube.stats_tube(TUBE)["current-jobs-buried"] == 1)
    assert "workers have vanished with it" in caplog.text


def test_a_job_that_was_kicked_has_all_its_chances_again(
    queue: JobQueue, tube, running, beanstalkd_port: int
) -> None:
    queue.put(Number(number=1))
    for _ in range(worker.MAX_ATTEMPTS):
        eventually(lambda: tube.stats_tube(TUBE)["current-jobs-ready"] == 1)
        _vanish_with(beanstalkd_port, jobs=1)
    handled: list[int] = []
    running(lambda jobs: handled.extend(map(_number, jobs)))
    eventually(lambda: tube.stats_tube(TUBE)["current-jobs-buried"] == 1)
    tube.kick(1)

    eventually(lambda: handled == [1])


def test_a_job_that_cannot_be_read_is_buried_at_once_and_harms_no_other(
    queue: JobQueue, tube, running
) -> None:
    queue.put(Number(number=1))
    tube.put(b"\xff junk")
    queue.put(Number(number=2))
    handled: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        handled.extend([_number(job) for job in jobs])

    running(handle, batch=10)

    eventually(lambda: tube.stats_tube(TUBE)["current-jobs-buried"] == 1 and len(handled) == 2)
    assert handled == [1, 2]


def test_buried_jobs_are_not_forgotten(
    queue: JobQueue, tube, running, caplog: pytest.LogCaptureFixture
) -> None:
    tube.put(b"junk")
    tube.bury(tube.reserve(timeout=5))
    running(lambda jobs: None)

    eventually(lambda: "1 buried jobs wait for you: python -m common.jobs list" in caplog.messages)


def test_a_job_whose_connection_was_lost_while_it_was_handled_is_settled_all_the_same(
    queue: JobQueue, tube, running
) -> None:
    handled: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        handled.append(_number(jobs[0]))
        queue.close()  # to the server, this worker is dead, and the job anybody's

    queue.put(Number(number=1))
    running(handle)

    eventually(lambda: handled and _is_empty(tube))


def test_an_outage_keeps_the_jobs_that_wait_from_being_tried(
    queue: JobQueue, tube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (3600, 3600))
    for number in range(25):
        queue.put(Number(number=number))
    stop = Event()
    handled: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        handled.extend([_number(job) for job in jobs])
        stop.set()
        raise Away

    work([queue], handle, (Away,), stop, batch=10)

    assert handled == list(range(10))
    assert tube.stats_tube(TUBE)["current-jobs-ready"] == 15


def test_an_outage_among_jobs_that_are_handled_one_by_one_gives_the_rest_back(
    queue: JobQueue, tube, running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (3600, 3600))
    for number in range(4):
        queue.put(Number(number=number))
    batches: list[list[int]] = []

    def handle(jobs: Sequence[Job]) -> None:
        batches.append([_number(job) for job in jobs])
        raise Away if batches[-1] == [1] else RuntimeError("a bug")

    running(handle, batch=4)

    eventually(lambda: len(batches) == 3 and tube.stats_tube(TUBE)["current-jobs-ready"] == 2)
    assert batches == [[0, 1, 2, 3], [0], [1]]


def test_a_worker_that_is_stopped_gives_back_what_it_has_not_begun(queue: JobQueue, tube) -> None:
    for number in range(4):
        queue.put(Number(number=number))
    stop = Event()
    batches: list[list[int]] = []

    def handle(jobs: Sequence[Job]) -> None:
        batches.append([_number(job) for job in jobs])
        if len(jobs) > 1:
            raise RuntimeError("a bug")
        stop.set()

    work([queue], handle, (Away,), stop, batch=4)

    assert batches == [[0, 1, 2, 3], [0]]
    assert tube.stats_tube(TUBE)["current-jobs-ready"] == 3


@pytest.mark.kills
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_is_back_soon_after_its_queue(own: Own, how: signal.Signals) -> None:
    beanstalkd = own(server_processes.beanstalkd)
    beanstalkd.start()
    putting, working = (JobQueue.connect("127.0.0.1", beanstalkd.port, TUBE) for _ in range(2))
    handled: list[int] = []
    stop = Event()
    thread = Thread(
        target=work, args=([working], lambda jobs: handled.append(_number(jobs[0])), (Away,), stop)
    )
    thread.start()
    putting.put(Number(number=1))
    eventually(lambda: handled == [1])
    putting.close()
    beanstalkd.end_by(how)
    beanstalkd.start()
    putting.put(Number(number=2))

    eventually(lambda: handled == [1, 2])

    stop.set()
    thread.join()
    putting.close()
    working.close()


SLOW = """
import sys
from common.jobs.queue import JobQueue
from common.jobs.worker import stop_on_signal, work

def handle(jobs):
    print("handling", flush=True)
    stop.wait()
    print("handled", flush=True)

stop = stop_on_signal()
print("ready", flush=True)
work([JobQueue.connect("127.0.0.1", int(sys.argv[1]), sys.argv[2])], handle, (), stop)
"""


@pytest.fixture
def slow(beanstalkd_port: int, tube) -> Iterator[subprocess.Popen[str]]:
    """A worker process whose jobs take until it has been told to stop."""
    command = [sys.executable, "-c", SLOW, str(beanstalkd_port), TUBE]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.kills
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_job_in_hand_be_finished_and_takes_no_other(
    queue: JobQueue, tube, slow: subprocess.Popen[str], number: signal.Signals
) -> None:
    queue.put(Number(number=1))
    queue.put(Number(number=2))
    assert [_line(slow), _line(slow)] == ["ready", "handling"]

    slow.send_signal(number)

    assert slow.wait(PATIENCE_SECONDS) == 0
    assert _line(slow) == "handled"
    assert json.loads(tube.peek_ready().body)["payload"] == {"number": 2}


@pytest.mark.kills
def test_signals_may_come_in_heaps(slow: subprocess.Popen[str]) -> None:
    assert _line(slow) == "ready"
    for _ in range(300):
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(slow.pid, number)

    assert slow.wait(PATIENCE_SECONDS) == 0


def test_a_chore_that_meets_an_outage_says_so_once_it_has_worked(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[Exception | None] = [Away("not made yet"), None, Away("gone")]

    def task() -> None:
        if failure := turns.pop(0):
            raise failure

    chore = Periodic(0, task, (Away,))
    for _ in range(3):
        chore()

    assert [record.getMessage() for record in caplog.records] == ["a chore waits: gone"]


@pytest.mark.parametrize("failure", [Away, ZeroDivisionError])
def test_a_chore_that_fails_waits_for_its_next_turn(failure: type[Exception]) -> None:
    runs: list[int] = []

    def periodic() -> None:
        runs.append(1)
        raise failure

    every = Periodic(3600, periodic, (Away,))
    every()
    every()

    assert runs == [1]


def test_a_beanstalkd_that_stays_away_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RECONNECT_SECONDS", (0, 0))
    stop, turns = Event(), iter(range(5))

    def count() -> None:
        if next(turns, None) is None:
            stop.set()

    away = JobQueue.connect("127.0.0.1", server_processes.free_port(), TUBE)
    work([away], lambda jobs: None, (), stop, chores=[count])

    assert caplog.text.count("reconnecting") == 1
