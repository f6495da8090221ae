"""Jobs on Beanstalkd: one tube, one connection, every wait bounded."""

import logging
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, Literal, NamedTuple, Self

import greenstalk
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import CannotServe
from common.telemetry import context, metrics
from common.telemetry.instruments import Timer
from common.telemetry.logging import RepeatedWarning

logger = logging.getLogger(__name__)

# Every verb fails within this, whatever the server does; a reserve may wait its own time longer.
TIMEOUT_SECONDS = 1.5
# While beanstalkd is unavailable, one thread finds out when it is back; the others do not hang with it.
FAIL_FAST_SECONDS = 0.02
TTR_SECONDS = 60

# What beanstalkd accepts by default: a larger job is a bug of ours.
MAX_JOB_BYTES = 65535

JOB_STATES = ("ready", "delayed", "reserved", "buried")

# What greenstalk raises for a response that was cut off, or is not beanstalkd's.
STRANGE_RESPONSES = (AssertionError, ValueError, KeyError, OverflowError, MemoryError)
FAILURES = (OSError, greenstalk.Error, *STRANGE_RESPONSES)

# By what beanstalkd says to a command that is well-formed, as all of ours are.
REASONS: dict[type[Exception], str] = {
    greenstalk.DrainingError: "is in drain mode",
    greenstalk.OutOfMemoryError: "is out of memory",
    greenstalk.BuriedError: "is out of memory",
    greenstalk.InternalError: "reports an internal error",
    greenstalk.JobTooBigError: "accepts only smaller jobs: raise its -z",
}
STRANGE = "does not respond as a beanstalkd does"


class QueueUnavailable(Exception):
    """Beanstalkd is unavailable."""


class QueueCannotServe(QueueUnavailable, CannotServe):
    """Beanstalkd responds, but refuses what it should do."""


class Envelope(BaseModel):
    """What every job carries around its payload."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    # The worker sends both on in its requests' headers.
    request_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")
    traceparent: str = Field(pattern=r"^([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")
    payload: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A reserved job. The handler parses its text: so a malformed job is buried, and the worker goes on."""

    id: int
    text: bytes
    # By `time.monotonic()`, where it is known.
    put_at: float | None = field(default=None, compare=False)
    # The server that it is from; other servers have other jobs of that number.
    queue: "JobQueue | None" = field(default=None, compare=False, repr=False)

    def open(self) -> dict[str, Any]:
        """Its payload; from here on, work is done under the job's request id."""
        context.resume(self._envelope.request_id, self._envelope.traceparent)
        return self._envelope.payload

    @property
    def cause(self) -> str:
        """The trace of its put; empty for a job that cannot be read."""
        try:
            return self._envelope.traceparent
        except ValidationError:
            return ""

    @cached_property
    def _envelope(self) -> Envelope:
        return Envelope.model_validate_json(self.text)

    def touch(self) -> None:
        """Have it for `TTR_SECONDS` from now."""
        if self.queue:
            self.queue.touch(self)


class History(NamedTuple):
    """What Beanstalkd knows of a job: workers that vanished with it since it was last kicked, and its age."""

    abandoned: int
    age_seconds: int


class Tube(NamedTuple):
    """How many jobs of a tube are in which state, and the age of the next one of some states."""

    jobs: dict[str, int]
    age_seconds: dict[str, int]


class JobQueue:
    """One tube. Threads may share it: the lock makes them take turns on the one connection."""

    outages = (QueueUnavailable,)

    def __init__(self, host: str, port: int, tube: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.address = (host, port)
        self.tube = tube
        self._timeout_seconds = timeout_seconds
        self._lock = Lock()
        self._client: greenstalk.Client[bytes] | None = None
        self._is_unavailable = False
        self._warn = RepeatedWarning(logger)

    @classmethod
    def connect(cls, host: str, port: int, tube: str) -> Self:
        """Build the queue, without network activity: the first verb connects."""
        return cls(host, port, tube)

    def ping(self, seconds: float | None = None) -> None:
        with self._connection("ping", seconds) as client:
            is_draining = client.stats()["draining"] == "true"
        if is_draining:
            raise QueueCannotServe(REASONS[greenstalk.DrainingError])

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def put(self, payload: BaseModel, delay: int = 0, seconds: float | None = None) -> None:
        """Queue a job, ready after `delay` seconds; when this returns, Beanstalkd has it.

        It takes `seconds` at most, or as long as any other verb. Raises QueueUnavailable, and ValueError for
        a job of more than `MAX_JOB_BYTES`.
        """
        with self._timed("put", is_traced=True):
            # Inside, as a job carries the trace of its own put.
            job = _wrap(payload)
            with self._exclusive_connection(seconds) as client:
                client.put(job, delay=delay, ttr=TTR_SECONDS)

    def reserve(self, timeout: int) -> Job | None:
        """The next job, or None after `timeout` seconds without one."""
        with self._exclusive_connection(self._timeout_seconds + timeout) as client:
            try:
                job = client.reserve(timeout)
            except (greenstalk.TimedOutError, greenstalk.DeadlineSoonError):
                return None
            return Job(job.id, job.body, queue=self)

    def attempts(self, job: Job) -> int:
        """How often this job has been reserved, as far as the server remembers."""
        with self._ignoring_lost_lease(job, "stats") as client:
            return client.stats_job(job.id)["reserves"]
        return 0

    def failures(self, job: Job) -> int:
        """As attempts, without those that met an outage."""
        with self._ignoring_lost_lease(job, "stats") as client:
            stats = client.stats_job(job.id)
            outages: int = greenstalk.DEFAULT_PRIORITY - stats["pri"]
            return stats["reserves"] - outages
        return 0

    def history(self, job: Job) -> History:
        """What happened to this job before it was reserved now."""
        with self._ignoring_lost_lease(job, "stats") as client:
            stats = client.stats_job(job.id)
            lost: int = stats["reserves"] - stats["releases"] - stats["buries"] - 1
            return History(lost // (1 + stats["kicks"]), stats["age"])
        return History(0, 0)

    def buried(self) -> int:
        """How many jobs of this tube are buried."""
        with self._connection("stats") as client:
            return int(client.stats_tube(self.tube)["current-jobs-buried"])

    def measure(self) -> Tube:
        """How full the tube is."""
        with self._connection("stats") as client:
            return measure(client, self.tube, ("ready", "buried"))

    def delete(self, job: Job) -> None:
        with self._ignoring_lost_lease(job, "delete") as client:
            client.delete(job.id)

    def release(self, job: Job, delay: int, met_outage: bool = False) -> None:
        """Give it back for so many seconds. Its priority counts outages: Beanstalkd has no count for them."""
        with self._ignoring_lost_lease(job, "release") as client:
            priority = client.stats_job(job.id)["pri"] - met_outage
            client.release(greenstalk.Job(job.id, job.text), priority=max(priority, 0), delay=delay)

    def touch(self, job: Job) -> None:
        """Have the job for `TTR_SECONDS` from now."""
        with self._ignoring_lost_lease(job, "touch") as client:
            client.touch(greenstalk.Job(job.id, job.text))

    def bury(self, job: Job) -> None:
        with self._ignoring_lost_lease(job, "bury") as client:
            client.bury(greenstalk.Job(job.id, job.text))

    @contextmanager
    def _ignoring_lost_lease(self, job: Job, operation: str) -> Iterator[greenstalk.Client[bytes]]:
        with self._connection(operation) as client:
            try:
                yield client
            except greenstalk.NotFoundError:
                # Its time to run is over, and another worker may have it: handling is idempotent.
                logger.warning("job %d is not ours any more", job.id)

    @contextmanager
    def _connection(self, operation: str, seconds: float | None = None) -> Iterator[greenstalk.Client[bytes]]:
        """The connection for one operation, which is timed."""
        with self._timed(operation), self._exclusive_connection(seconds) as client:
            yield client

    def _timed(self, operation: str, is_traced: bool = False) -> Timer:
        return metrics.queue_operations.time(
            "beanstalkd", self.tube, operation, errors=self.outages, is_traced=is_traced
        )

    @contextmanager
    def _exclusive_connection(self, seconds: float | None) -> Iterator[greenstalk.Client[bytes]]:
        deadline = time.monotonic() + (self._timeout_seconds if seconds is None else seconds)
        if not self._lock.acquire(
            timeout=FAIL_FAST_SECONDS if self._is_unavailable else _remaining(deadline)
        ):
            raise QueueUnavailable("the connection to beanstalkd is busy")
        try:
            client = self._client or self._open(deadline)
            self._socket.settimeout(_remaining(deadline))
            yield client
            self._is_unavailable = False
        except FAILURES as exc:
            self._is_unavailable = True
            # After a time-out, the next response would be the one to the last command.
            self._disconnect()
            if isinstance(exc, OSError):
                raise QueueUnavailable(f"beanstalkd at {self.address}: {exc!r}") from exc
            self._warn(f"beanstalkd at {self.address}: {exc!r}")
            raise QueueCannotServe(REASONS.get(type(exc), STRANGE)) from exc
        finally:
            self._lock.release()

    def _open(self, deadline: float) -> greenstalk.Client[bytes]:
        self._socket = socket.create_connection(self.address, timeout=_remaining(deadline))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._client = greenstalk.Client(self._socket, encoding=None)
        for verb, tube in (
            (client.use, self.tube),
            (client.watch, self.tube),
            (client.ignore, greenstalk.DEFAULT_TUBE),
        ):
            self._socket.settimeout(_remaining(deadline))
            verb(tube)
        return client

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None


def _wrap(payload: BaseModel) -> bytes:
    envelope = Envelope(
        request_id=context.request_id.get(),
        traceparent=context.traceparent.get(),
        payload=payload.model_dump(mode="json"),
    )
    job = envelope.model_dump_json().encode()
    if len(job) > MAX_JOB_BYTES:
        raise ValueError(f"a job of {len(job)} bytes")
    return job


def _remaining(deadline: float) -> float:
    """The seconds until then, but more than 0: for a socket, that means not to wait at all."""
    return max(deadline - time.monotonic(), 0.01)


def measure(client: greenstalk.Client[bytes], tube: str, aged_states: Iterable[str]) -> Tube:
    """How full the tube is that the client uses; `aged_states` are those of which it says an age.

    Beanstalkd shows no reserved job. Raises greenstalk.NotFoundError for a tube that is gone.
    """
    stats: dict[str, Any] = {**client.stats_tube(tube)}
    peeks = {"ready": client.peek_ready, "delayed": client.peek_delayed, "buried": client.peek_buried}
    ages = {state: _age(client, peeks[state]) for state in aged_states}
    return Tube({state: int(stats[f"current-jobs-{state}"]) for state in JOB_STATES}, ages)


def _age(client: greenstalk.Client[bytes], peek: Callable[[], greenstalk.Job[bytes]]) -> int:
    try:
        return int(client.stats_job(peek().id)["age"])
    except greenstalk.NotFoundError:
        return 0
