"""GET /metrics: what it shows, and to which clients."""

import random
import re
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from common.api.routing import router
from common.server.app import create_service
from common.settings import THREADS, ServiceSettings
from common.telemetry import metrics
from common.telemetry.instruments import OTHER, Switch
from tests.polling import eventually

HERE = ("127.0.0.1", 50000)
routes = router("shelf")


@routes.get("/books/{title}")
def book(title: str) -> str:
    return title


busy: list[Event] = []


@routes.get("/waiting")
def waiting() -> None:
    busy[-1].wait()


def make_app(**settings: object) -> FastAPI:
    settings = {"port": 5999, "registry_url": "", **settings}
    return create_service("shelf", "Books.", ServiceSettings(_env_file=None, **settings), [routes])


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(make_app(), client=HERE, base_url="http://localhost:5999") as client:
        yield client


def requests_by_labels(client: TestClient) -> dict[tuple[str, str, str], float]:
    text = client.get("/metrics").raise_for_status().text
    return {
        (
            sample.labels["http_request_method"],
            sample.labels["http_route"],
            sample.labels["http_response_status_code"],
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_server_request_duration_seconds_count"
    }


def growth(
    client: TestClient, before: dict[tuple[str, str, str], float]
) -> dict[tuple[str, str, str], float]:
    after = requests_by_labels(client)
    return {
        labels: count - before.get(labels, 0)
        for labels, count in after.items()
        if labels[1] != "/metrics" and count != before.get(labels, 0)
    }


def test_requests_are_counted_by_the_template_of_their_path(client: TestClient) -> None:
    before = requests_by_labels(client)

    client.get("/books/dune")
    client.get("/books/emma")
    client.head("/books/emma")

    assert growth(client, before) == {
        ("GET", "/books/{title}", "200"): 2,
        ("HEAD", "/books/{title}", "200"): 1,
    }


def test_unknown_paths_and_methods_share_one_label(client: TestClient) -> None:
    before = requests_by_labels(client)

    for number in range(50):
        client.get(f"/junk/{number}")
        client.request(f"JUNK{number}", "/")

    assert growth(client, before) == {("GET", OTHER, "404"): 50, (OTHER, OTHER, "404"): 50}


def test_junk_makes_no_new_series_after_a_while(client: TestClient) -> None:
    chance = random.Random(1)

    def send(number: int) -> None:
        path = "".join(chance.choices("abc/%{}~é0123456789", k=chance.randrange(1, 30)))
        client.request(chance.choice(["GET", "POST", "PUT", "X", "A" * 50]), f"/x{quote(path)}")

    for number in range(100):
        send(number)
    before = requests_by_labels(client)
    for number in range(200):
        send(number)

    assert requests_by_labels(client).keys() == before.keys()


def test_requests_that_are_being_served_are_shown(client: TestClient) -> None:
    text = client.get("/metrics").text

    assert "\nhttp_server_active_requests 1.0\n" in text  # this one


def test_the_process_its_build_its_loop_and_its_threads_are_shown(client: TestClient) -> None:
    text = client.get("/metrics").text

    for name in (
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "python_gc_collections_total",
        "microblog_build_info",
        "microblog_thread_pool_threads",
        "microblog_thread_pool_pending_requests",
    ):
        assert f"\n# TYPE {name} " in f"\n{text}", name


def test_it_answers_while_every_thread_is_busy(client: TestClient) -> None:
    end = Event()
    busy.append(end)
    with ThreadPoolExecutor(2 * THREADS) as callers:
        waiting = [callers.submit(client.get, "/waiting") for _ in range(2 * THREADS)]
        try:
            pending = "microblog_thread_pool_pending_requests"
            shown = eventually(lambda: re.search(rf"^{pending} {THREADS}.0$", _scraped(client), re.MULTILINE))
        finally:
            end.set()

    assert shown
    assert [one.result().status_code for one in waiting] == [200] * len(waiting)


def _scraped(client: TestClient) -> str:
    return client.get("/metrics").raise_for_status().text


def test_its_type_is_that_of_prometheus_text(client: TestClient) -> None:
    assert client.get("/metrics").headers["Content-Type"] == metrics.CONTENT_TYPE


def test_it_is_not_in_the_api_document(client: TestClient) -> None:
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("peer", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "testclient"])
def test_another_machine_may_not_read_it(peer: str) -> None:
    answer = TestClient(make_app(), client=(peer, 1), base_url="http://localhost").get("/metrics")

    assert (answer.status_code, answer.json()["code"]) == (403, "operators_only")


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1"])
def test_this_machine_may(peer: str) -> None:
    answer = TestClient(make_app(), client=(peer, 1), base_url="http://localhost").get("/metrics")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP"]
)
def test_a_client_behind_a_proxy_on_this_machine_may_not(client: TestClient, header: str) -> None:
    assert client.get("/metrics", headers={header: "127.0.0.1"}).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5999", "192.0.2.1", "[", "127.0.0.1.evil.example"]
)
def test_a_web_page_whose_name_leads_to_this_machine_may_not(client: TestClient, host: str) -> None:
    assert client.get("/metrics", headers={"Host": host}).status_code == 403


def test_the_token_opens_it_to_other_machines() -> None:
    client = TestClient(make_app(status_token="sesame"), client=("192.0.2.1", 1))

    codes = [
        client.get("/metrics", headers={"Authorization": given}).status_code
        for given in ("Bearer sesame", "Bearer sesam", "sesame", "Bearer ")
    ]

    assert codes == [200, 403, 403, 403]


@pytest.mark.parametrize(
    ("given", "code"),
    [(":sesame", 200), ("alice:sesame", 200), ("sesame:", 403), ("alice:sesam", 403), ("alice:", 403)],
)
def test_a_browser_may_give_the_token_as_a_password(given: str, code: int) -> None:
    client = TestClient(make_app(status_token="sesame"), client=("192.0.2.1", 1))
    headers = {"Authorization": f"Basic {b64encode(given.encode()).decode()}"}

    assert client.get("/metrics", headers=headers).status_code == code


@pytest.mark.parametrize("given", ["Basic", "Basic sesame", "Basic c2VzYW1l", "Basic \xe9", "Digest sesame"])
def test_what_is_no_password_opens_nothing(given: str) -> None:
    client = TestClient(make_app(status_token="sesame"), client=("192.0.2.1", 1))

    assert client.get("/metrics", headers={"Authorization": given.encode("latin-1")}).status_code == 403


def test_an_empty_token_opens_nothing() -> None:
    client = TestClient(make_app(), client=("192.0.2.1", 1))

    assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 403


@pytest.fixture
def restored() -> Iterator[None]:
    yield
    Switch.is_on = True


@pytest.mark.usefixtures("restored")
def test_there_is_nothing_to_read_when_it_is_off() -> None:
    with TestClient(make_app(metrics=False), client=HERE, base_url="http://localhost") as client:
        answer = client.get("/metrics")

    assert (answer.status_code, answer.json()["code"]) == (404, "metrics_off")
