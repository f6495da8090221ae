"""The suite as a real Prometheus sees it, under some load."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import prometheus
from tests.polling import eventually
from tests.prometheus import Prometheus
from tests.suite.conftest import PASSWORD, Suite

pytestmark = pytest.mark.starts

QUERIES = [
    *(
        (name, query)
        for name, board in prometheus.dashboards().items()
        for query in prometheus.panel_queries(board)
    ),
    *(("rules", query) for query in prometheus.recorded().values()),
]
ROUNDS = 5


@pytest.fixture(scope="module")
def watched(suite: Suite, data: Path) -> Iterator[Prometheus]:
    """A Prometheus that has seen every kind of request, job and mail."""
    folder = data / "prometheus"
    folder.mkdir()
    server = Prometheus(folder, f"http://127.0.0.1:{suite.ports['registry']}")
    try:
        _load(suite, "before")
        eventually(lambda: server.value('count(up{job="microblog"} == 1)') == len(suite.ports))
        eventually(lambda: server.ask('microblog_mails_total{outcome="sent"}'))
        # A rate needs a growth between two scrapes.
        _load(suite, "after")
        eventually(lambda: server.value('max(increase(microblog_mails_total{outcome="sent"}[1m]))') > 0)
        yield server
    finally:
        server.stop()


def _load(suite: Suite, when: str) -> None:
    gateway = suite.gateway
    author, reader = suite.sign_up(f"seen_author_{when}"), suite.sign_up(f"seen_reader_{when}")
    gateway.post("/login", json={"username": f"seen_author_{when}", "password": PASSWORD + "!"})
    poll = gateway.post("/polls", json={"question": "?", "options": ["a", "b"]}, headers=author).json()
    gateway.post(f"/polls/{poll['id']}/vote", json={"option": 1}, headers=reader)
    for number in range(ROUNDS):
        post = gateway.post("/posts", json={"text": f"{number}"}, headers=author).json()
        queued = gateway.post("/posts/async", json={"text": "Later!"}, headers=author)
        gateway.post(f"/likes/{post['id']}", headers=reader)
        suite.see(queued.headers["Location"])
    eventually(lambda: len(suite.mails_to(f"seen_author_{when}")) == ROUNDS)


def test_every_process_is_found_and_scraped(suite: Suite, watched: Prometheus) -> None:
    found = {one["metric"]["service"] for one in watched.ask('up{job="microblog"} == 1')}

    assert found == set(suite.ports)


@pytest.mark.parametrize(("place", "query"), QUERIES)
def test_every_query_has_an_answer(watched: Prometheus, place: str, query: str) -> None:
    assert eventually(lambda: watched.ask(query)), place


@pytest.mark.parametrize("alert", prometheus.alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_can_be_evaluated_and_is_silent(watched: Prometheus, alert: dict[str, str]) -> None:
    assert watched.ask(alert["expr"]) == []


def test_prometheus_counts_as_many_requests_as_the_client_sent(suite: Suite, watched: Prometheus) -> None:
    route = 'service="gateway",http_route="/polls/{poll_id}/results"'
    count = f"sum(http_server_request_duration_seconds_count{{{route}}})"
    before = watched.value(count)

    for _ in range(37):
        suite.gateway.get("/polls/019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e/results")

    eventually(lambda: watched.value(count) == before + 37)


def test_a_scrape_is_quick(watched: Prometheus) -> None:
    for one in watched.ask('min_over_time(scrape_duration_seconds{job="microblog"}[1m])'):
        assert float(one["value"][1]) < 0.5, one  # on a machine that is busy; bench.observability measures it


def test_labels_are_bounded(suite: Suite, watched: Prometheus) -> None:
    def series() -> float:
        return watched.value('sum(scrape_samples_scraped{service="gateway"})')

    for number in range(50):
        suite.gateway.get(f"/junk/{number}")
        suite.gateway.get(f"/users/nobody{number}")
    eventually(
        lambda: watched.value('sum(http_server_request_duration_seconds_count{http_route="_OTHER"})') >= 50
    )
    before = series()
    for number in range(50, 100):
        suite.gateway.get(f"/junk/{number}")
        suite.gateway.get(f"/users/nobody{number}")
    eventually(
        lambda: watched.value('sum(http_server_request_duration_seconds_count{http_route="_OTHER"})') >= 100
    )

    assert series() == before
