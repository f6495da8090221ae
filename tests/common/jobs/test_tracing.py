"""The spans of jobs, from the put to the end of their handling, on a real Beanstalkd."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import count
from threading import Event

import pytest
from pydantic import BaseModel

from common.jobs import worker
from common.jobs.conditions import Redundant
from common.jobs.queue import Job, JobQueue
from common.jobs.worker import each
from common.settings import ServiceSettings
from common.telemetry import context
from tests.otlp_receiver import Receiver, receiver

SPAN_ID = "00f067aa0ba902b7"
numbers = count()


class Note(BaseModel):
    text: str


class Away(Exception):
    pass


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with receiver() as collector, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        with ServiceSettings(_env_file=None, port=1).tracing("shelf_worker"):
            yield collector


@pytest.fixture
def queue(beanstalkd_port: int) -> Iterator[JobQueue]:
    with closing(JobQueue.connect("127.0.0.1", beanstalkd_port, f"test.tracing.{next(numbers)}")) as queue:
        yield queue


def trace_id() -> str:
    return f"{next(numbers) + 1:032x}"


def put(queue: JobQueue, trace_id: str, flags: str = "01") -> None:
    with context.under("mine", f"00-{trace_id}-{SPAN_ID}-{flags}"):
        queue.put(Note(text="secret"))


def handle(queue: JobQueue, handle: Callable[[Sequence[Job]], None], batch: int = 1) -> None:
    """Reserve and handle jobs once."""
    worker._turn(queue, Redundant([queue]), handle, (Away,), Event(), batch, None)


def test_a_job_is_handled_in_the_trace_of_its_put(collector: Receiver, queue: JobQueue) -> None:
    trace = trace_id()
    put(queue, trace)
    seen: list[str] = []
    handle(queue, each(lambda payload: seen.append(context.traceparent.get())))

    sent, processed = (
        collector.wait_for(name, trace) for name in (f"put {queue.tube}", f"process {queue.tube}")
    )
    assert (sent.kind, sent.parent_id) == ("PRODUCER", SPAN_ID)
    assert (processed.kind, processed.parent_id) == ("CONSUMER", sent.position[1])
    assert processed.links == (sent.position,)
    assert seen == [f"00-{trace}-{processed.position[1]}-01"]


def test_the_spans_of_a_job_have_the_attributes_of_the_conventions_and_none_of_its_text(
    collector: Receiver, queue: JobQueue
) -> None:
    trace = trace_id()
    put(queue, trace)
    handle(queue, each(lambda payload: None))

    sent, processed = (
        collector.wait_for(name, trace) for name in (f"put {queue.tube}", f"process {queue.tube}")
    )
    common = {"messaging.system": "beanstalkd", "messaging.destination.name": queue.tube}
    assert sent.attributes == {
        **common,
        "messaging.operation.name": "put",
        "messaging.operation.type": "send",
    }
    assert processed.attributes == {
        **common,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    assert not any(b"secret" in body for body in collector.bodies)


def test_a_batch_is_one_span_with_a_link_to_each_of_its_jobs(collector: Receiver, queue: JobQueue) -> None:
    traces = [trace_id() for _ in range(3)]
    for trace in traces:
        put(queue, trace)
    inside: list[str] = []
    handle(queue, lambda jobs: inside.extend(context_of(job) for job in jobs), batch=3)

    processed = collector.wait_for(f"process {queue.tube}")
    sent = [collector.wait_for(f"put {queue.tube}", trace).position for trace in traces]
    assert processed.trace_id not in traces
    assert (processed.parent_id, processed.links) == ("", tuple(sent))
    assert processed.attributes["messaging.batch.message_count"] == 3
    assert inside == [f"00-{processed.trace_id}-{processed.position[1]}-01"] * 3


def context_of(job: Job) -> str:
    job.open()
    return context.traceparent.get()


def test_a_batch_is_sampled_with_any_of_its_jobs(collector: Receiver, queue: JobQueue) -> None:
    put(queue, trace_id(), flags="00")
    put(queue, sampled := trace_id())
    handle(queue, lambda jobs: [job.open() for job in jobs], batch=2)

    assert sampled in dict(collector.wait_for(f"process {queue.tube}").links)


def test_a_batch_of_which_no_job_is_sampled_is_not(collector: Receiver, queue: JobQueue) -> None:
    for _ in range(2):
        put(queue, trace_id(), flags="00")
    inside: list[str] = []
    handle(queue, lambda jobs: inside.extend(context_of(job) for job in jobs), batch=2)

    assert [trace[-2:] for trace in inside] == ["00", "00"]


def test_a_job_that_meets_an_outage_is_a_span_with_an_error(collector: Receiver, queue: JobQueue) -> None:
    put(queue, trace := trace_id())

    def fail(payload: object) -> None:
        raise Away

    stop = Event()
    stop.set()  # else the loop pauses after an outage
    worker._turn(queue, Redundant([queue]), each(fail), (Away,), stop, 1, None)

    processed = collector.wait_for(f"process {queue.tube}", trace)
    assert (processed.is_error, processed.attributes["error.type"]) == (True, "Away")


def test_a_batch_that_fails_is_handled_in_the_traces_of_its_jobs(
    collector: Receiver, queue: JobQueue
) -> None:
    put(queue, trace_id(), flags="00")
    put(queue, sampled := trace_id())
    inside: list[str] = []

    def refuse_batches(jobs: Sequence[Job]) -> None:
        if len(jobs) > 1:
            raise RuntimeError
        inside.append(context_of(jobs[0])[-2:])

    handle(queue, refuse_batches, batch=2)

    assert inside == ["00", "01"]
    assert collector.wait_for(f"process {queue.tube}", sampled).parent_id


@pytest.mark.usefixtures("collector")
def test_what_a_worker_does_next_is_no_part_of_a_jobs_trace(queue: JobQueue) -> None:
    put(queue, trace_id())
    before = context.traceparent.get()
    handle(queue, each(lambda payload: None))

    assert context.traceparent.get() == before


def test_work_that_no_request_has_caused_begins_a_trace_with_its_job(
    collector: Receiver, queue: JobQueue
) -> None:
    with context.under("mine", ""):
        context.start_unprompted()
        queue.put(Note(text=""))

    assert collector.wait_for(f"put {queue.tube}").parent_id == ""


@pytest.mark.usefixtures("collector")
def test_a_job_that_cannot_be_read_is_buried_as_ever(queue: JobQueue) -> None:
    with queue._exclusive_connection(None) as client:
        client.put(b"no envelope")
    handle(queue, each(lambda payload: None))

    assert queue.buried() == 1
