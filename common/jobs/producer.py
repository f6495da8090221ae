"""Puts jobs into one tube, on any of the servers that is up."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from threading import Event, Lock, Thread

from pydantic import BaseModel

from common.jobs.queue import TIMEOUT_SECONDS, JobQueue, QueueUnavailable
from common.settings import Server, netloc
from common.telemetry import metrics
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

# How often a server that is left out is asked whether it is back.
PING_SECONDS = 0.5


class Producer:
    """One tube on several servers, each in its turn. Threads may share it.

    A server that fails is left out until it answers a ping, as long as there is
    another one. All of them together take as long to fail as one alone, so one
    that hangs has a part of that time, once.
    """

    outages = (QueueUnavailable,)

    def __init__(self, servers: Sequence[Server], tube: str) -> None:
        """Without network activity: the first verb connects."""
        self._queues = [JobQueue.connect(*server, tube) for server in servers]
        self._turns = count()
        self._left_out: set[JobQueue] = set()
        self._lock = Lock()
        self._closed = Event()
        self._warn = RepeatedWarning(logger)

    def put(self, payload: BaseModel, delay: int = 0) -> None:
        """Queue a job, ready after `delay` seconds; when this returns, one of the servers has it.

        One that has not answered in time may have it, too. Raises QueueUnavailable when no server takes it,
        and ValueError for a job of more than `MAX_JOB_BYTES`.
        """
        self._on_any(lambda queue, seconds: queue.put(payload, delay, seconds))

    def ping(self) -> str | None:
        """Raises QueueUnavailable when no server can take a job. Returns a warning of those that cannot."""
        self._on_any(JobQueue.ping)
        missing = ", ".join(sorted(netloc(*queue.address) for queue in list(self._left_out)))
        return f"{missing} cannot be used: its jobs wait" if missing else None

    def close(self) -> None:
        self._closed.set()
        for queue in self._queues:
            queue.close()

    def _on_any(self, call: Callable[[JobQueue, float], None]) -> None:
        if len(self._queues) == 1:
            call(self._queues[0], TIMEOUT_SECONDS)
            return
        deadline = time.monotonic() + TIMEOUT_SECONDS
        outage = QueueUnavailable("no beanstalkd is known")
        for queue, parts in self._candidates():
            try:
                call(queue, (deadline - time.monotonic()) / parts)
            except QueueUnavailable as exc:
                outage = exc
                self._leave_out(queue, exc)
            else:
                return
        raise outage

    def _candidates(self) -> Iterator[tuple[JobQueue, int]]:
        """The servers to be tried, and among how many the time that is left is to be divided."""
        first = next(self._turns) % len(self._queues)
        in_turn = self._queues[first:] + self._queues[:first]
        # One that is left out may be back by now.
        promising_first = sorted(in_turn, key=lambda queue: queue in self._left_out)
        return zip(promising_first, range(len(in_turn), 0, -1), strict=True)

    def _leave_out(self, queue: JobQueue, outage: QueueUnavailable) -> None:
        """Leave it out until it answers a ping; one thread asks for all of them."""
        with self._lock:
            if queue in self._left_out:
                return
            self._left_out.add(queue)
            metrics.queue_server_up.set(0, netloc(*queue.address))
            is_first = len(self._left_out) == 1
        self._warn(f"jobs go to another server: {outage}")
        if is_first:
            Thread(target=self._await_return, name="beanstalkd", daemon=True).start()

    def _await_return(self) -> None:
        while self._left_out and not self._closed.wait(PING_SECONDS):
            for queue in list(self._left_out):
                with suppress(QueueUnavailable):
                    queue.ping(PING_SECONDS)
                    with self._lock:
                        self._left_out.discard(queue)
                        metrics.queue_server_up.set(1, netloc(*queue.address))
