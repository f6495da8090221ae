"""What one scrape of a process says."""

import math
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from common.gateway.status.exposition import Labels, samples

REQUESTS = "http_server_request_duration_seconds"
BATCHES = "messaging_process_duration_seconds"
JOBS = "microblog_jobs_total"
NAMES = (
    REQUESTS,
    BATCHES,
    JOBS,
    "microblog_build_info",
    "microblog_dependency_up",
    "microblog_queue_",
    "process_start_time_seconds",
)
# Sent by machines, or as long as the client stays: no measure of how the suite serves.
IGNORED_ROUTES = {"/livez", "/health", "/metrics", "/status", "/services", "/revocations", "/stream"}
STATES = ("ready", "delayed", "reserved", "buried")
# Of one kind in one process, and the characters of each: the gateway keeps what a process says.
MAX_NAMES = 50
MAX_LENGTH = 100


@dataclass
class Work:
    """Requests or jobs since the process began: how many, how many failed, how many within each bound."""

    count: float = 0
    errors: float = 0
    within: dict[float, float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class Tube:
    """Its jobs by state, and the age in seconds of the oldest that waits to be taken."""

    jobs: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    oldest_ready_seconds: float = 0


@dataclass
class Reading:
    """A process as it was at a scrape; `started_at` is in seconds since 1970."""

    started_at: float | None = None
    version: str = ""
    requests: Work = field(default_factory=Work)
    jobs: Work = field(default_factory=Work)
    stores: dict[str, bool] = field(default_factory=dict)
    tubes: dict[str, Tube] = field(default_factory=lambda: defaultdict(Tube))


def read(text: str) -> Reading:
    """Raises ValueError for what is no exposition, or one that says more than any process of the suite."""
    reading = Reading()
    for name, labels, value in samples(text, NAMES):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
        _add(reading, name, labels, value)
    for names in (reading.stores, reading.tubes, [reading.version]):
        _require_few(names)
    for numbers in (reading.requests.within, reading.jobs.within):
        _require_few(list(map(str, numbers)))
    return reading


def _require_few(names: Collection[str]) -> None:
    if len(names) > MAX_NAMES or any(len(name) > MAX_LENGTH for name in names):
        raise ValueError("too many names, or too long ones")


def _add(reading: Reading, name: str, labels: Labels, value: float) -> None:
    if name.startswith(REQUESTS):
        if labels.get("http_route") not in IGNORED_ROUTES:
            is_error = labels.get("http_response_status_code", "").startswith("5")
            _count(reading.requests, name, labels, value, is_error)
    elif name.startswith(BATCHES) and name.endswith("_bucket"):
        _count(reading.jobs, name, labels, value, is_error=False)
    elif name == JOBS:
        _count(reading.jobs, f"{name}_count", labels, value, is_error=labels.get("outcome") != "done")
    else:
        _set(reading, name, labels, value)


def _count(work: Work, name: str, labels: Labels, value: float, is_error: bool) -> None:
    if name.endswith("_bucket"):
        work.within[float(labels.get("le", "inf"))] += value
    elif name.endswith("_count"):
        work.count += value
        work.errors += value if is_error else 0


def _set(reading: Reading, name: str, labels: Labels, value: float) -> None:
    tube, state = labels.get("messaging_destination_name", ""), labels.get("state", "")
    match name:
        case "process_start_time_seconds":
            reading.started_at = value
        case "microblog_build_info":
            reading.version = "+".join(filter(None, (labels.get("version"), labels.get("commit"))))
        case "microblog_dependency_up":
            reading.stores[labels.get("name", "")] = bool(value)
        case "microblog_queue_jobs" if state in STATES:
            reading.tubes[tube].jobs[state] = value
        case "microblog_queue_oldest_job_age_seconds" if state == "ready":
            reading.tubes[tube].oldest_ready_seconds = value
