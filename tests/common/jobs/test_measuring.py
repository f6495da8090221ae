"""What is measured of jobs and tubes, on a real Beanstalkd."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from threading import Event, Thread
from typing import Any

import greenstalk
import pytest
import server_processes
from pydantic import BaseModel

from common.jobs import worker
from common.jobs.conditions import conditions
from common.jobs.gauges import TubeGauges
from common.jobs.queue import Job, JobQueue, QueueUnavailable
from common.jobs.worker import work
from common.telemetry import metrics
from tests import tubes
from tests.own_server import Own
from tests.polling import eventually
from tests.scrape import value

TUBE = "test.measuring"


class Number(BaseModel):
    number: int


class Away(Exception):
    pass


class Gone(Exception):
    pass


@pytest.fixture
def queue(beanstalkd_port: int) -> Iterator[JobQueue]:
    with (
        greenstalk.Client(("127.0.0.1", beanstalkd_port), encoding=None, use=TUBE, watch=TUBE) as client,
        closing(JobQueue.connect("127.0.0.1", beanstalkd_port, TUBE)) as queue,
    ):
        yield queue
        client.kick(1000)
        tubes.clear(client)


def outcomes() -> dict[str, float]:
    return {
        outcome: value("microblog_jobs_total", messaging_destination_name=TUBE, outcome=outcome)
        for outcome in ("done", "retried", "met_outage", "buried")
    }


def worked(queue: JobQueue, *failures: Exception | None) -> dict[str, float]:
    """By how much the outcomes grow while a worker handles jobs, of which each meets what is given."""
    before, stop, left = outcomes(), Event(), list(failures)

    def handle(jobs: Sequence[Job]) -> None:
        failure = left.pop(0)
        if not left:
            stop.set()
        if failure:
            raise failure

    work([queue], handle, (Away,), stop)
    return {
        outcome: count - before[outcome] for outcome, count in outcomes().items() if count != before[outcome]
    }


def test_jobs_are_counted_by_their_outcome(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (0, 0))
    for number in range(3):
        queue.put(Number(number=number))

    assert worked(queue, None, RuntimeError(), Away()) == {"done": 1, "retried": 1, "met_outage": 1}


def test_a_job_that_cannot_be_read_counts_as_buried(queue: JobQueue) -> None:
    queue.put(Number(number=1))
    before, stop = outcomes(), Event()

    def handle(jobs: Sequence[Job]) -> None:
        stop.set()
        Number.model_validate({})

    work([queue], handle, (), stop)

    assert outcomes()["buried"] == before["buried"] + 1


def test_the_time_from_put_to_done_is_measured(queue: JobQueue) -> None:
    before = value("microblog_job_completion_seconds_count", messaging_destination_name=TUBE)
    queue.put(Number(number=1))

    worked(queue, None)

    after = value("microblog_job_completion_seconds_count", messaging_destination_name=TUBE)
    assert after == before + 1


def test_handling_is_timed_with_its_error(queue: JobQueue) -> None:
    labels = {"messaging_destination_name": TUBE, "error_type": "RuntimeError"}
    before = value("messaging_process_duration_seconds_count", **labels)
    queue.put(Number(number=1))

    worked(queue, RuntimeError())

    assert value("messaging_process_duration_seconds_count", **labels) == before + 1


def test_a_worker_shows_how_full_its_tube_is(queue: JobQueue) -> None:
    for number in range(3):
        queue.put(Number(number=number))
    queue.put(Number(number=3), delay=60)
    job = queue.reserve(0)
    assert job
    queue.bury(job)

    with closing(TubeGauges([queue])):
        shown = {
            state: value("microblog_queue_jobs", messaging_destination_name=TUBE, state=state)
            for state in ("ready", "delayed", "reserved", "buried")
        }

    assert shown == {"ready": 2, "delayed": 1, "reserved": 0, "buried": 1}


def test_the_age_of_the_oldest_job_is_shown(queue: JobQueue) -> None:
    queue.put(Number(number=1))

    def age() -> float:
        with closing(TubeGauges([queue])):
            return value(
                "microblog_queue_oldest_job_age_seconds", messaging_destination_name=TUBE, state="ready"
            )

    assert eventually(age) >= 1


def test_loops_on_one_tube_show_it_once(queue: JobQueue, beanstalkd_port: int) -> None:
    queue.put(Number(number=1), delay=60)
    stop = Event()
    others = [JobQueue.connect("127.0.0.1", beanstalkd_port, TUBE) for _ in range(3)]
    threads = [
        Thread(target=work, args=([one], lambda jobs: None, (), stop), kwargs={"reminds": one is others[0]})
        for one in others
    ]
    for thread in threads:
        thread.start()
    try:
        delayed = {"messaging_destination_name": TUBE, "state": "delayed"}
        assert eventually(lambda: value("microblog_queue_jobs", **delayed)) == 1
    finally:
        stop.set()
        for thread, one in zip(threads, others, strict=True):
            thread.join()
            one.close()


@pytest.mark.kills
def test_a_scrape_does_not_wait_for_a_beanstalkd_that_hangs(own: Own) -> None:
    beanstalkd = own(server_processes.beanstalkd)
    beanstalkd.start()
    with closing(TubeGauges([JobQueue.connect("127.0.0.1", beanstalkd.port, "test.hung")])):
        before = value("microblog_queue_jobs", messaging_destination_name="test.hung", state="ready")
        beanstalkd.hang()
        text = metrics.exposition().decode()

    assert before == 0
    assert "process_cpu_seconds_total" in text


@pytest.mark.parametrize("verb", ["put", "delete"])
def test_operations_are_timed(queue: JobQueue, verb: str) -> None:
    labels = {"messaging_destination_name": TUBE, "messaging_operation_name": verb, "error_type": ""}
    before = value("messaging_client_operation_duration_seconds_count", **labels)
    queue.put(Number(number=1))

    worked(queue, None)

    assert value("messaging_client_operation_duration_seconds_count", **labels) == before + 1


def test_an_operation_without_beanstalkd_is_timed_as_an_outage() -> None:
    labels: dict[str, Any] = {"messaging_operation_name": "put", "error_type": "QueueUnavailable"}
    before = value("messaging_client_operation_duration_seconds_count", **labels)

    with pytest.raises(QueueUnavailable):
        JobQueue.connect("127.0.0.1", server_processes.free_port(), TUBE).put(Number(number=1))

    assert value("messaging_client_operation_duration_seconds_count", **labels) == before + 1


def test_a_loop_that_meets_an_outage_says_so_until_it_works(
    queue: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "OUTAGE_PAUSE_SECONDS", (0, 0))
    monkeypatch.setattr(worker, "MAX_OUTAGE_DELAY_SECONDS", 0)
    queue.put(Number(number=1))
    stop, seen = Event(), list[list[str]]()

    def handle(jobs: Sequence[Job]) -> None:
        seen.append(list(conditions.by_name({"shelf": (Gone,)})))
        if len(seen) < 2:
            raise Gone
        stop.set()

    work([queue], handle, (Gone,), stop)

    assert seen == [[], ["shelf"]]
    assert conditions.by_name({"shelf": (Gone,)}) == {}
