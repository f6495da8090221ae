"""Jobs on Beanstalkd: one tube, one connection, every wait bounded."""

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Literal, Self

import greenstalk
from pydantic import BaseModel, ConfigDict

from common import telemetry

logger = logging.getLogger(__name__)

# A put fails within this, whatever the server does; a reserve may wait its own time longer.
SOCKET_SECONDS = 1.5
TTR_SECONDS = 60

# Retrying these later may help; JOB_TOO_BIG and the like never get better.
NOT_NOW = (
    OSError,
    # What greenstalk says of an answer that was cut off.
    AssertionError,
    greenstalk.DrainingError,
    greenstalk.OutOfMemoryError,
    greenstalk.BuriedError,
    greenstalk.InternalError,
)


class QueueDown(Exception):
    """Beanstalkd does not take or give jobs now."""


class Envelope(BaseModel):
    """What every job carries around its payload."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    request_id: str
    traceparent: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A reserved job. Its text is parsed by who handles it, so that junk is buried and not fatal."""

    id: int
    text: bytes

    def open(self) -> dict[str, Any]:
        """Its payload; from here on, work is done under the job's request id."""
        envelope = Envelope.model_validate_json(self.text)
        telemetry.begin(envelope.request_id, envelope.traceparent)
        return envelope.payload


class JobQueue:
    """One tube. Threads may share it: the lock makes them take turns on the one connection."""

    outages = (QueueDown,)

    def __init__(self, host: str, port: int, tube: str) -> None:
        self._address = (host, port)
        self._tube = tube
        self._lock = Lock()
        self._client: greenstalk.Client[bytes] | None = None

    @classmethod
    def connect(cls, host: str, port: int, tube: str) -> Self:
        """Build the queue, without network activity: the first verb connects."""
        return cls(host, port, tube)

    def prepare(self) -> None:
        """Tubes make themselves."""

    def ping(self) -> None:
        with self._connection() as client:
            client.stats()

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def put(self, payload: BaseModel) -> None:
        """Queue a job; when this returns, Beanstalkd has it."""
        envelope = Envelope(
            request_id=telemetry.request_id.get(),
            traceparent=telemetry.traceparent.get(),
            payload=payload.model_dump(mode="json"),
        )
        with self._connection() as client:
            client.put(envelope.model_dump_json().encode(), ttr=TTR_SECONDS)

    def reserve(self, timeout: int) -> Job | None:
        """The next job, or None after `timeout` seconds without one."""
        with self._connection(extra_seconds=timeout) as client:
            try:
                job = client.reserve(timeout)
            except (greenstalk.TimedOutError, greenstalk.DeadlineSoonError):
                return None
            return Job(job.id, job.body)

    def attempts(self, job: Job) -> int:
        """How often this job has been reserved, as far as the server remembers."""
        with self._settling(job) as client:
            return client.stats_job(job.id)["reserves"]
        return 0

    def delete(self, job: Job) -> None:
        with self._settling(job) as client:
            client.delete(job.id)

    def release(self, job: Job, delay: int) -> None:
        with self._settling(job) as client:
            client.release(greenstalk.Job(job.id, job.text), delay=delay)

    def bury(self, job: Job) -> None:
        with self._settling(job) as client:
            client.bury(greenstalk.Job(job.id, job.text))

    @contextmanager
    def _settling(self, job: Job) -> Iterator[greenstalk.Client[bytes]]:
        with self._connection() as client:
            try:
                yield client
            except greenstalk.NotFoundError:
                # Its time to run was over and it is another worker's now: handling is idempotent.
                logger.warning("job %d is not ours any more", job.id)

    @contextmanager
    def _connection(self, extra_seconds: float = 0) -> Iterator[greenstalk.Client[bytes]]:
        if not self._lock.acquire(timeout=SOCKET_SECONDS + extra_seconds):
            raise QueueDown("the connection to beanstalkd is busy")
        try:
            client = self._client = self._client or self._open()
            self._socket.settimeout(SOCKET_SECONDS + extra_seconds)
            yield client
        except NOT_NOW as exc:
            # After a time-out the next answer would be the one to the last question.
            self._disconnect()
            raise QueueDown(f"beanstalkd at {self._address}: {exc!r}") from exc
        finally:
            self._lock.release()

    def _open(self) -> greenstalk.Client[bytes]:
        self._socket = socket.create_connection(self._address, timeout=SOCKET_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return greenstalk.Client(self._socket, encoding=None, use=self._tube, watch=self._tube)

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None
