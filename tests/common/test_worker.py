"""The loop that works jobs, on a real Beanstalkd."""

from collections.abc import Callable, Iterator, Sequence
from threading import Event, Thread

import greenstalk
import pytest
from pydantic import BaseModel

from common import worker
from common.queue import Job, JobQueue
from common.worker import Every, work
from tests.waiting import eventually

TUBE = "test.worker"


class Number(BaseModel):
    number: int


class Away(Exception):
    pass


@pytest.fixture
def tube(beanstalkd_port: int) -> Iterator[greenstalk.Client[bytes]]:
    with greenstalk.Client(("127.0.0.1", beanstalkd_port), encoding=None, use=TUBE, watch=TUBE) as client:
        yield client
        client.kick(1000)
        while True:
            try:
                client.delete(client.reserve(timeout=0))
            except greenstalk.TimedOutError:
                break


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
        threads.append(Thread(target=work, args=(queue, handle, (Away,), stop, batch)))
        threads[-1].start()

    yield run
    stop.set()
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive()


def _is_empty(tube: greenstalk.Client[bytes]) -> bool:
    stats = tube.stats_tube(TUBE)
    names = ("current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed", "current-jobs-buried")
    return sum(stats[name] for name in names) == 0


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
    monkeypatch.setattr(worker, "OUTAGE_SECONDS", (0, 0))
    tries: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        tries.append(_number(jobs[0]))
        if len(tries) <= worker.MAX_ATTEMPTS + 2:
            raise Away

    queue.put(Number(number=1))
    running(handle)

    eventually(lambda: len(tries) == worker.MAX_ATTEMPTS + 3 and _is_empty(tube))


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


def test_what_cannot_be_read_is_buried_at_once_and_harms_nobody(queue: JobQueue, tube, running) -> None:
    queue.put(Number(number=1))
    tube.put(b"\xff junk")
    queue.put(Number(number=2))
    handled: list[int] = []

    def handle(jobs: Sequence[Job]) -> None:
        handled.extend([_number(job) for job in jobs])

    running(handle, batch=10)

    eventually(lambda: tube.stats_tube(TUBE)["current-jobs-buried"] == 1 and len(handled) == 2)
    assert handled == [1, 2]


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


def test_a_chore_runs_once_in_its_time_and_survives_an_outage() -> None:
    runs: list[int] = []

    def chore() -> None:
        runs.append(1)
        raise Away

    every = Every(3600, chore, (Away,))
    every()
    every()

    assert runs == [1]
