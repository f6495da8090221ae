"""The loop every background worker runs: reserve jobs, handle them, settle them."""

import logging
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from functools import partial
from threading import Event, Thread
from typing import Any

from pydantic import ValidationError

from common import memory
from common.jobs.conditions import Redundant, conditions
from common.jobs.gauges import TubeGauges
from common.jobs.queue import Job, JobQueue, QueueUnavailable
from common.settings import Server
from common.telemetry import metrics
from common.telemetry.logging import OutageWarning, RepeatedWarning

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 8
MAX_DELAY_SECONDS = 30
# An outage is not the job's fault: it is retried soon after the outage ends.
MAX_OUTAGE_DELAY_SECONDS = 4
RESERVE_SECONDS = 1
REMIND_SECONDS = 60
RECONNECT_SECONDS = (0.1, 2.0)
OUTAGE_PAUSE_SECONDS = (0.1, 1.0)

Outages = tuple[type[Exception], ...]
Handle = Callable[[Sequence[Job]], None]


def each(apply: Callable[[dict[str, Any]], None]) -> Handle:
    """Handle jobs one by one, by their payloads."""

    def handle(jobs: Sequence[Job]) -> None:
        for job in jobs:
            apply(job.open())

    return handle


def stop_on_signal() -> Event:
    """An event that SIGTERM and SIGINT set; both mean: finish the work in hand."""
    stop = Event()
    signals = {signal.SIGTERM, signal.SIGINT}
    # A handler runs in the main thread, but not while that waits for a lock. So these signals are blocked in
    # all threads, and one thread waits for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        signal.sigwait(signals)
        stop.set()

    Thread(target=wait, name="signals", daemon=True).start()
    return stop


def run_together(loops: Sequence[Callable[[Event], None]], stop: Event) -> None:
    """Run these loops, each in a thread, until all have ended: one that fails ends the others.

    A single one needs no thread.
    """
    if len(loops) == 1:
        loops[0](stop)
        return

    def run(loop: Callable[[Event], None]) -> None:
        try:
            loop(stop)
        finally:
            stop.set()

    with ThreadPoolExecutor(len(loops), "loop") as threads:
        list(threads.map(run, loops))


def prepare(ready: Callable[[], None], outages: Outages, stop: Event) -> None:
    """Call `ready` until it meets no outage."""
    warn = RepeatedWarning(logger)
    while not stop.is_set():
        try:
            ready()
        except outages as exc:
            conditions.met(ready, exc)
            warn(f"waiting for what this worker needs: {exc}")
            stop.wait(random.uniform(*RECONNECT_SECONDS))
        else:
            break
    conditions.over(ready)


@contextmanager
def queues_on(servers: Sequence[Server], tube: str) -> Iterator[list[JobQueue]]:
    """A queue for this tube on each of the servers: what `work` takes."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(JobQueue.connect(*server, tube))) for server in servers]


def work(
    queues: Sequence[JobQueue],
    handle: Handle,
    outages: Outages,
    stop: Event,
    batch: int = 1,
    chores: Sequence[Callable[[], None]] = (),
    ready: Callable[[], None] | None = None,
    reminds: bool = True,
) -> None:
    """Handle up to `batch` jobs at a time until `stop` is set.

    The queues are of one tube on different servers. Each has a thread of its own,
    so a server that is unavailable holds up its own jobs only. Between two batches,
    the first of these threads does the `chores`.

    A job that meets an outage is retried, each time later than the last, for
    as long as the outage lasts; meanwhile `ready` is called until it meets
    none. A job that fails otherwise is retried a few times and then buried;
    one that cannot be read is buried at once. Buried jobs are kept, where an
    operator can look at them and kick them: `reminds` says whether this loop
    tells of them.
    """
    memory.return_unused()
    servers = Redundant(queues)

    def on_one(queue: JobQueue, stop: Event) -> None:
        reminder = Periodic(REMIND_SECONDS, partial(_remind_of_buried, queue), queue.outages)
        own = [*([reminder] if reminds else ()), *(chores if queue is queues[0] else ())]
        turn = partial(_turn, queue, servers, handle, outages, stop, batch, ready)
        _repeat(queue, servers, [*own, turn], stop)

    with closing(TubeGauges(queues)) if reminds else nullcontext():
        run_together([partial(on_one, queue) for queue in queues], stop)


def _repeat(queue: JobQueue, servers: Redundant, steps: Sequence[Callable[[], None]], stop: Event) -> None:
    """Repeat these steps until `stop` is set, after a pause while the queue is unavailable."""
    warn = RepeatedWarning(logger)
    while not stop.is_set():
        try:
            for step in steps:
                step()
        except QueueUnavailable as exc:
            servers.met(queue, exc)
            warn(f"reconnecting: {exc}")
            stop.wait(random.uniform(*RECONNECT_SECONDS))


def _turn(
    queue: JobQueue,
    servers: Redundant,
    handle: Handle,
    outages: Outages,
    stop: Event,
    batch: int,
    ready: Callable[[], None] | None,
) -> None:
    """Reserve, handle and settle the next jobs, if there are any."""
    jobs = _reserve(queue, batch)
    servers.over(queue)
    # In a context of their own: what this thread does next is no part of their traces.
    if jobs and not copy_context().run(_handle, queue, jobs, handle, outages, stop):
        # The next jobs would meet the same outage, and each would count an attempt.
        stop.wait(random.uniform(*OUTAGE_PAUSE_SECONDS))
        if ready:
            prepare(ready, outages, stop)


def _remind_of_buried(queue: JobQueue) -> None:
    if buried := queue.buried():
        logger.warning("%d buried jobs wait for you: python -m common.jobs list", buried)


def _reserve(queue: JobQueue, batch: int) -> list[Job]:
    """The next jobs. A job that workers have died with comes alone, and is buried after some attempts.

    A worker that was killed leaves its whole batch at the head of the tube: so it
    is enough to check the first job.
    """
    first = queue.reserve(timeout=RESERVE_SECONDS)
    if first is None:
        return []
    abandoned, age_seconds = queue.history(first)
    if abandoned >= MAX_ATTEMPTS:
        logger.error("job %d buried: %d workers have vanished with it", first.id, abandoned)
        _bury(queue, first)
        return []
    jobs = [replace(first, put_at=time.monotonic() - age_seconds)]
    while not abandoned and len(jobs) < batch and (job := queue.reserve(timeout=0)):
        jobs.append(job)
    return jobs


def _handle(queue: JobQueue, jobs: Sequence[Job], handle: Handle, outages: Outages, stop: Event) -> bool:
    """Handle and settle these jobs; False when they met an outage."""
    try:
        with metrics.processing.time("beanstalkd", queue.tube, causes=(job.cause for job in jobs)):
            handle(jobs)
    except outages as exc:
        for job in jobs:
            _retry(queue, job, exc, MAX_OUTAGE_DELAY_SECONDS, met_outage=True)
        conditions.met(handle, exc)
        return False
    except Exception as exc:  # the one place: whatever it is, the job is kept and the loop goes on
        if len(jobs) > 1:
            return _handle_one_by_one(queue, jobs, handle, outages, stop)
        _bury_or_retry(queue, jobs[0], exc)
    else:
        for job in jobs:
            _delete(queue, job)
    conditions.over(handle)
    return True


def _delete(queue: JobQueue, job: Job) -> None:
    queue.delete(job)
    metrics.jobs.add(queue.tube, "done")
    if job.put_at is not None:
        metrics.time_to_done.record(time.monotonic() - job.put_at, queue.tube)


def _bury(queue: JobQueue, job: Job) -> None:
    queue.bury(job)
    metrics.jobs.add(queue.tube, "buried")


def _handle_one_by_one(
    queue: JobQueue, jobs: Sequence[Job], handle: Handle, outages: Outages, stop: Event
) -> bool:
    """Handle these jobs so that a bad one harms only itself; False when one met an outage."""
    is_healthy = True
    for job in jobs:
        if is_healthy and not stop.is_set():
            is_healthy = _handle(queue, [job], handle, outages, stop)
        else:
            queue.release(job, delay=0)
    return is_healthy


def _bury_or_retry(queue: JobQueue, job: Job, reason: Exception) -> None:
    is_unreadable = isinstance(reason, ValidationError)
    attempts = queue.failures(job)
    if is_unreadable or attempts >= MAX_ATTEMPTS:
        # A validation error repeats the input, which must not get into the log.
        why = "it cannot be read" if is_unreadable else f"attempt {attempts} met {reason!r}"
        logger.error("job %d buried: %s", job.id, why, exc_info=None if is_unreadable else reason)
        _bury(queue, job)
    else:
        _retry(queue, job, reason, MAX_DELAY_SECONDS)


def _retry(queue: JobQueue, job: Job, reason: Exception, max_delay: int, met_outage: bool = False) -> None:
    attempts = queue.attempts(job)
    delay = min(2**attempts, max_delay)
    delay = random.randint((delay + 1) // 2, delay)
    logger.warning("job %d: attempt %d met %r, again in %d s", job.id, attempts, reason, delay)
    queue.release(job, delay, met_outage)
    metrics.jobs.add(queue.tube, "met_outage" if met_outage else "retried")


class Periodic:
    """Runs a task at most once in so many seconds. After a failure it runs again at its next turn."""

    def __init__(self, seconds: float, task: Callable[[], None], outages: Outages) -> None:
        self._seconds = seconds
        self._task = task
        self._outages = outages
        self._next = 0.0
        self._warn = OutageWarning(logger)

    def __call__(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._seconds
        try:
            self._task()
            self._warn.worked()
        except self._outages as exc:
            self._warn(f"a chore waits: {exc}")
        except Exception:  # jobs are worth more than chores
            logger.exception("a chore failed")
