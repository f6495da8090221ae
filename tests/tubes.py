"""Tubes as an operator sees them, and what is put on them from outside."""

import json
from typing import Any

import greenstalk

from common.jobs.queue import JobQueue

Tubes = greenstalk.Client[bytes]

UNFINISHED = ("ready", "reserved", "delayed")


def is_empty(client: Tubes, *tubes: str, states: tuple[str, ...] = UNFINISHED) -> bool:
    """Whether no job of these tubes is in any of these states."""
    stats = [client.stats_tube(tube) for tube in tubes]
    return not any(one[f"current-jobs-{state}"] for one in stats for state in states)


def clear(client: Tubes) -> None:
    """Delete what is ready in the tubes that the client watches."""
    while True:
        try:
            client.delete(client.reserve(timeout=0))
        except greenstalk.TimedOutError:
            return


def take_all(queue: JobQueue) -> list[dict[str, Any]]:
    """The payloads of all jobs that are ready, which are gone then."""
    found = []
    while job := queue.reserve(timeout=0):
        found.append(job.open())
        queue.delete(job)
    return found


def job(payload: object) -> bytes:
    """A job with this payload, as a service puts it."""
    return json.dumps({"version": 1, "request_id": "r", "traceparent": "", "payload": payload}).encode()
