"""What is measured: every instrument of the suite, by OpenTelemetry's names where it has one.

Units are in the names. docs/metrics.md is made of this.
"""

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    GCCollector,
    ProcessCollector,
    generate_latest,
)

from common.telemetry.instruments import OTHER, Counter, Gauge, Histogram, Instrument, Observed, Switch
from common.telemetry.traces import Traced
from common.version import COMMIT, RELEASE

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Those of OpenTelemetry's semantic conventions for HTTP, in seconds.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OPERATION_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
# From a job that is done at once to a mail that is deferred for days.
JOB_SECONDS = (0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 14400.0, 86400.0, 345600.0)

# What prometheus-client knows of the process, and of Python in it.
_process = CollectorRegistry()
ProcessCollector(registry=_process)
GCCollector(registry=_process)

METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}

build_info = Gauge("microblog_build_info", "1; the labels say what runs.", "version", "commit")

server_requests = Histogram(
    "http_server_request_duration_seconds",
    "Requests, from the end of their headers to the end of the response.",
    "http.request.method",
    "http.route",
    "http.response.status_code",
    bounds=REQUEST_SECONDS,
)
active_requests = Observed("http_server_active_requests", "Requests that are being served.")
refused_requests = Counter(
    "microblog_http_refusals_total", "What came in and was no request, by the code of the refusal.", "code"
)

event_loop_lag = Histogram(
    "microblog_event_loop_lag_seconds",
    "By how much a timer of the event loop is late.",
    bounds=OPERATION_SECONDS,
)
threads = Observed(
    "microblog_thread_pool_threads", "Threads for endpoints: `used`, `idle`.", "thread_pool_state"
)
thread_queue = Observed("microblog_thread_pool_pending_requests", "Requests that wait for such a thread.")

calls = Histogram(
    "http_client_request_duration_seconds",
    "Calls of instances of other services, up to the head of the response.",
    "peer.service",
    "http.request.method",
    "http.response.status_code",
    "error.type",
    bounds=REQUEST_SECONDS,
)
retries = Counter(
    "microblog_retries_total",
    "Calls that were sent again after one failed, mostly to another instance.",
    "peer.service",
)
ejections = Counter(
    "microblog_ejections_total", "Instances that were ejected after failures.", "peer.service"
)
ejected_instances = Observed("microblog_ejected_instances", "Instances ejected now.", "peer.service")
breaker_trips = Counter(
    "microblog_circuit_breaker_trips_total", "How often a store hung: all calls fail for a moment.", "name"
)
open_breakers = Observed("microblog_circuit_breaker_open", "1 while all calls fail at once.", "name")
bulkhead_refusals = Counter(
    "microblog_bulkhead_refusals_total", "Calls that found no free slot in time.", "name"
)
rate_limit_refusals = Counter(
    "microblog_rate_limit_refusals_total", "Requests that were refused with 429, by the limit.", "policy"
)
registry_is_current = Observed(
    "microblog_directory_current", "1 while a registry's snapshot is current, 0 while only old ones stay."
)

store_operations = Histogram(
    "db_client_operation_duration_seconds",
    "Operations of stores. An `error_type` is an outage, never a result such as a conflict.",
    "db.system.name",
    "db.operation.name",
    "error.type",
    bounds=OPERATION_SECONDS,
    span=Traced("CLIENT", "{1}"),
)
store_retries = Counter(
    "microblog_store_retries_total", "Operations that a store was asked for again.", "db.system.name"
)
pool_connections = Observed(
    "db_client_connection_count",
    "Connections to stores: `used`, `idle`.",
    "db.client.connection.pool.name",
    "db.client.connection.state",
)
pool_limit = Observed(
    "db_client_connection_max", "The most connections that there may be.", "db.client.connection.pool.name"
)
pool_pending = Gauge(
    "db_client_connection_pending_requests",
    "Threads that wait for a connection.",
    "db.client.connection.pool.name",
)
replica_lag = Observed(
    "microblog_replica_lag_seconds", "How old what PostgreSQL's replica shows is, at most."
)
dependency_up = Gauge(
    "microblog_dependency_up", "1 while what the process needs can serve, as `GET /health` says.", "name"
)

registered_instances = Observed(
    "microblog_registry_instances",
    "Registered instances, by service and status.",
    "registered_service",
    "status",
)
registrations = Counter(
    "microblog_registry_changes_total",
    "What became of instances: `registered`, `replaced`, `deregistered`, `expired`.",
    "change",
)
heartbeats = Counter("microblog_registry_heartbeats_total", "Heartbeats of registered instances.")
watchers = Observed("microblog_registry_watchers", "Clients that wait for a change of the snapshot.")

queue_operations = Histogram(
    "messaging_client_operation_duration_seconds",
    "Commands to Beanstalkd, without those that wait for a job.",
    "messaging.system",
    "messaging.destination.name",
    "messaging.operation.name",
    "error.type",
    bounds=OPERATION_SECONDS,
    span=Traced("PRODUCER", "{2} {1}", {"messaging.operation.type": "send"}),
)
queue_server_up = Gauge(
    "microblog_queue_server_up",
    "0 while one of several Beanstalkds is left out, 1 when it is used again.",
    "server_address",
)
tube_jobs = Observed(
    "microblog_queue_jobs",
    "Jobs by tube and state: `ready`, `delayed`, `reserved`, `buried`.",
    "messaging.destination.name",
    "state",
)
oldest_job = Observed(
    "microblog_queue_oldest_job_age_seconds",
    "The age of the next `ready` and of the first `buried` job.",
    "messaging.destination.name",
    "state",
)
jobs = Counter(
    "microblog_jobs_total",
    "What became of reserved jobs: `done`, `retried`, `met_outage`, `buried`.",
    "messaging.destination.name",
    "outcome",
)
processing = Histogram(
    "messaging_process_duration_seconds",
    "Handling a batch of jobs.",
    "messaging.system",
    "messaging.destination.name",
    "error.type",
    bounds=JOB_SECONDS,
    span=Traced(
        "CONSUMER",
        "process {1}",
        {"messaging.operation.type": "process", "messaging.operation.name": "process"},
    ),
)
time_to_done = Histogram(
    "microblog_job_completion_seconds",
    "From the put of a batch's first job to its end; Beanstalkd tells the age in whole seconds.",
    "messaging.destination.name",
    bounds=JOB_SECONDS,
)

mails = Counter(
    "microblog_mails_total",
    "Mails: `sent`, `unwanted`, `deferred`, `refused`, `in_doubt`, `given_up`.",
    "kind",
    "outcome",
)
mail_sessions = Histogram(
    "microblog_mail_session_duration_seconds",
    "A session with the mail server, from connecting to what became of its mail.",
    "error.type",
    bounds=JOB_SECONDS,
    span=Traced("CLIENT", "send mail", {"network.protocol.name": "smtp"}),
)
hashing = Histogram(
    "microblog_password_hashing_seconds",
    "Hashing a password, or checking one, without the wait for a thread.",
    "error.type",
    bounds=OPERATION_SECONDS,
    span=Traced("INTERNAL", "hash password"),
)
hashing_queue = Observed("microblog_password_hashing_pending", "Requests that wait for a thread to hash.")
sign_ins = Counter("microblog_sign_ins_total", "Sign-ins: `right`, `wrong` password.", "outcome")
accounts = Counter("microblog_registrations_total", "New accounts.")
posts = Counter("microblog_posts_total", "New posts: `stored` at once, or `queued`.", "way")
likes = Counter("microblog_likes_total", "Likes: `liked`, `unliked`.", "change")
votes = Counter("microblog_votes_total", "Votes in polls.")

spans = Counter(
    "microblog_spans_total",
    "Spans: `exported`; `lost`, as the collector did not take them; `dropped`, as the queue was full.",
    "outcome",
)


def method_label(method: str) -> str:
    """The method, if it is a known one: clients may send any word."""
    return method if method in METHODS else OTHER


def configure(is_on: bool) -> None:
    """Record from now on, or record nothing."""
    Switch.is_on = is_on
    build_info.set(1, RELEASE, COMMIT)


def exposition() -> bytes:
    """All that this process has recorded, in Prometheus' text format."""
    return "".join(one.text() for one in INSTRUMENTS).encode() + generate_latest(_process)


INSTRUMENTS = [one for one in globals().values() if isinstance(one, Instrument)]
