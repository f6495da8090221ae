"""What the status page reads of a scrape."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.gateway.status import reading
from common.gateway.status.exposition import samples
from common.telemetry import metrics
from common.telemetry.instruments import Histogram


def test_samples_are_those_that_prometheus_reads() -> None:
    odd = Histogram("odd_seconds", "Odd.", "name", "le_not", bounds=(0.5, 1.0))
    for label in ('a"b', "a\\b", "a\nb", "{a}", "a,b=c", "", "é", 'le="1"'):
        odd.record(0.7, label, "x")
    text = odd.text()
    expected = [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]

    assert list(samples(text, ("odd_",))) == expected


def test_a_process_of_the_suite_is_read() -> None:
    metrics.server_requests.record(0.02, "GET", "/a", 200)
    metrics.server_requests.record(0.02, "GET", "/a", 503)
    metrics.dependency_up.set(0, "a_store")
    before = reading.read(metrics.exposition().decode())
    metrics.server_requests.record(0.02, "GET", "/a", 200)
    metrics.server_requests.record(0.02, "GET", "/a", 500)
    metrics.server_requests.record(9.9, "GET", "/metrics", 200)
    after = reading.read(metrics.exposition().decode())

    assert after.requests.count - before.requests.count == 2
    assert after.requests.errors - before.requests.errors == 1
    assert after.requests.within[0.025] - before.requests.within[0.025] == 2
    assert after.started_at == before.started_at > 0
    assert after.stores["a_store"] is False


def test_jobs_are_counted_by_their_outcome() -> None:
    text = 'microblog_jobs_total{messaging_destination_name="posts",outcome="done"} 5.0\n'
    text += 'microblog_jobs_total{messaging_destination_name="posts",outcome="buried"} 2.0\n'

    jobs = reading.read(text).jobs

    assert (jobs.count, jobs.errors) == (7, 2)


@pytest.mark.parametrize(
    "text",
    [
        "process_start_time_seconds",
        "process_start_time_seconds nan",
        "process_start_time_seconds 1e999",
        'microblog_dependency_up{name="a"} up',
        'http_server_request_duration_seconds_bucket{le="x"} 1',
        "".join(f'microblog_dependency_up{{name="{n}"}} 1\n' for n in range(1000)),
        "".join(
            f'microblog_queue_jobs{{messaging_destination_name="{n}",state="ready"}} 1\n' for n in range(99)
        ),
        "".join(f'http_server_request_duration_seconds_bucket{{le="{n}"}} 1\n' for n in range(1000)),
        f'microblog_build_info{{version="{"1" * 1000}"}} 1',
    ],
)
def test_what_no_process_of_the_suite_says_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        reading.read(text)
