"""What the gateway measures, and to which clients it shows that."""

from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

import gateway
from tests.gateway.conftest import Answer, Upstream
from tests.scrape import growth

HERE = ("127.0.0.1", 50000)


@pytest.fixture
def make() -> Callable[..., TestClient]:
    """A client of a gateway with these settings, on the same machine."""

    def make(**settings: str) -> TestClient:
        app = gateway.create_app(gateway.GatewaySettings(_env_file=None, registry_url=None, **settings))
        return TestClient(app, client=HERE, base_url="http://localhost:8080")

    return make


@pytest.fixture
def counted(timelines: Upstream) -> Iterator[Callable[[], float]]:
    """How many requests of single posts the gateway has counted."""
    name = "http_server_request_duration_seconds_count"
    with growth(name, http_route="/posts/id/{post_id}", http_response_status_code="200") as growing:
        yield growing


def test_a_client_on_the_same_machine_may_read_it(make: Callable[..., TestClient]) -> None:
    assert make().get("/metrics").status_code == 200


@pytest.mark.parametrize("forwarded", ["127.0.0.1", "192.0.2.1", "127.0.0.1, 127.0.0.1", "::1"])
@pytest.mark.parametrize("trusted", ["", "127.0.0.1", "0.0.0.0/0"])
def test_a_client_behind_a_proxy_may_not(
    make: Callable[..., TestClient], forwarded: str, trusted: str
) -> None:
    client = make(trusted_proxies=trusted)

    assert client.get("/metrics", headers={"X-Forwarded-For": forwarded}).status_code == 403


def test_a_client_with_the_token_may_from_anywhere(make: Callable[..., TestClient]) -> None:
    client = make(trusted_proxies="127.0.0.1", status_token="sesame")
    headers = {"X-Forwarded-For": "192.0.2.1", "Authorization": "Bearer sesame"}

    assert client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/posts/%2e%2e/metrics", "/metrics/users", "//metrics"])
def test_no_path_leads_to_the_metrics_of_a_service(
    client: TestClient, timelines: Upstream, path: str
) -> None:
    answer = client.get(f"http://testserver{path}")

    assert answer.status_code in (400, 404)
    assert timelines.requests == []


def test_a_request_is_counted_by_its_route(client: TestClient, counted: Callable[[], float]) -> None:
    for number in range(3):
        client.get(f"/posts/id/{number}")
    client.head("/posts/id/4")

    assert counted() == 4


def test_a_call_is_counted_by_its_service_and_status(client: TestClient, timelines: Upstream) -> None:
    timelines.behaviour = lambda answer: answer.reply(409)

    labels = {"peer_service": "timelines", "http_response_status_code": "409", "error_type": ""}
    with growth("http_client_request_duration_seconds_count", **labels) as growing:
        client.post("/posts", json={})

        assert growing() == 1


def test_a_call_that_breaks_off_is_counted_and_so_are_its_retry_and_the_refusal(
    client: TestClient, listed: Callable[..., None], start: Callable[[str], Upstream]
) -> None:
    broken = [start("timelines") for _ in range(2)]
    for one in broken:
        one.behaviour = Answer.reset
    listed(*(one.as_instance() for one in broken))

    with (
        growth("http_client_request_duration_seconds_count", peer_service="timelines") as calls,
        growth("microblog_retries_total", peer_service="timelines") as retries,
        growth("http_server_request_duration_seconds_count", http_response_status_code="502") as refusals,
    ):
        client.get("/posts")

        assert (calls(), retries(), refusals()) == (2, 1, 1)


def test_an_instance_that_refuses_connections_counts_as_ejected(
    client: TestClient, listed: Callable[..., None], start: Callable[[str], Upstream]
) -> None:
    gone = start("timelines")
    gone.close()
    listed(gone.as_instance())

    with growth("microblog_ejections_total", peer_service="timelines") as growing:
        client.get("/posts")

        assert growing() == 1


def test_a_refusal_by_a_limit_is_counted(make: Callable[..., TestClient]) -> None:
    client = make(rate_limit="1/hour burst 1")

    with client, growth("microblog_rate_limit_refusals_total", policy="ordinary") as growing:
        statuses = [client.get("/posts").status_code for _ in range(3)]

        assert growing() == statuses.count(429) == 2
