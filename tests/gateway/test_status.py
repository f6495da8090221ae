"""GET /status: to which clients it is shown, what it says of processes, and when it asks them."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

import gateway
from common.discovery.models import Instance, Status
from common.gateway.status import scraper
from tests.gateway.conftest import Answer, Upstream
from tests.instances import instance, snapshot_of
from tests.polling import eventually

HERE = ("127.0.0.1", 50000)
ELSEWHERE = ("192.0.2.1", 50000)
AS_JSON = {"Accept": "application/json"}


def make(peer: tuple[str, int] = HERE, **settings: str) -> TestClient:
    """A client of a gateway with these settings."""
    app = gateway.create_app(gateway.GatewaySettings(_env_file=None, registry_url=None, **settings))
    return TestClient(app, client=peer, base_url="http://localhost:8080")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """On the gateway's machine; scrapes come fast."""
    monkeypatch.setattr(scraper, "SCRAPE_SECONDS", 0.05)
    with make() as client:
        yield client


def tell(client: TestClient, *instances: Instance) -> None:
    client.app.state.directory.update(snapshot_of(*instances), now=0)


def process(client: TestClient, name: str) -> dict[str, Any]:
    """The only process of this name, as JSON has it."""
    report = client.get("/status", headers=AS_JSON).raise_for_status().json()
    [found] = [one for one in (*report["services"], *report["workers"]) if one["name"] == name]
    return found


def exposition(requests: int = 0, errors: int = 0, store: str = "postgres") -> bytes:
    name = "http_server_request_duration_seconds"
    labels = 'http_request_method="GET",http_route="/posts",http_response_status_code='
    lines = [
        "process_start_time_seconds 1000.0",
        'microblog_build_info{version="9.8.7",commit="abcdef0"} 1.0',
        f'microblog_dependency_up{{name="{store}"}} 1.0',
        f'{name}_bucket{{{labels}"200",le="0.1"}} {requests}',
        f'{name}_bucket{{{labels}"200",le="+Inf"}} {requests}',
        f'{name}_count{{{labels}"200"}} {requests}',
        f'{name}_count{{{labels}"503"}} {errors}',
    ]
    return "\n".join([*lines, ""]).encode()


def says(text: bytes) -> Callable[[Answer], None]:
    return lambda answer: answer.reply(200, text)


def counting() -> Callable[[Answer], None]:
    """A process whose requests grow from scrape to scrape."""
    return lambda answer: answer.reply(
        200, exposition(10 * len(answer.server.requests), len(answer.server.requests))
    )


def test_a_client_on_the_same_machine_sees_a_page() -> None:
    with make() as client:
        answer = client.get("/status")

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_a_client_elsewhere_is_refused() -> None:
    with make(ELSEWHERE) as client:
        answer = client.get("/status")

    assert (answer.status_code, answer.json()["code"]) == (403, "operators_only")
    assert answer.headers["Content-Type"] == "application/problem+json"


def basic(password: str) -> str:
    return f"Basic {b64encode(f'operator:{password}'.encode()).decode()}"


@pytest.mark.parametrize("given", [None, "Bearer wrong", basic("wrong"), "Bearer "])
def test_without_the_token_a_browser_is_told_to_ask_for_it(given: str | None) -> None:
    with make(ELSEWHERE, status_token="sesame") as client:
        answer = client.get("/status", headers={"Authorization": given} if given else {})

    assert (answer.status_code, answer.json()["code"]) == (401, "operators_only")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("given", ["Bearer sesame", basic("sesame")])
def test_the_token_opens_it_to_other_machines(given: str) -> None:
    with make(ELSEWHERE, status_token="sesame") as client:
        assert client.get("/status", headers={"Authorization": given}).status_code == 200


def test_a_client_behind_a_proxy_on_this_machine_is_refused() -> None:
    with make(trusted_proxies="127.0.0.1") as client:
        assert client.get("/status", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "text/html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json", "application/json"),
        ("application/json;q=0.9, text/html;q=0.5", "application/json"),
        ("text/html, application/json;q=0.9", "text/html"),
        ("application/json;q=1.0, text/html", "text/html"),
        ("application/json;q=0", "text/html"),
        (";;,/,q=,", "text/html"),
    ],
)
def test_it_is_json_for_a_client_that_asks_for_it(accept: str, media_type: str) -> None:
    with make() as client:
        answer = client.get("/status", headers={"Accept": accept})

    assert answer.headers["Content-Type"].partition(";")[0] == media_type


def test_the_page_is_not_stored_and_loads_only_its_own_parts() -> None:
    with make() as client:
        answer = client.get("/status")

    policy = answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'")
    assert "unsafe" not in policy
    assert not re.search(r"<style|style=|<script>|\son\w+=", answer.text)


@pytest.mark.parametrize("root_path", ["", "/microblog"])
def test_what_the_page_links_to_is_there(root_path: str) -> None:
    with make(root_path=root_path) as client:
        page = client.get(f"{root_path}/status")
        linked = re.findall(r'(?:href|src)="(?!data:)([^"]+)"', page.text)
        types = [client.get(f"{root_path}/{path}").headers["Content-Type"] for path in linked]

    assert [one.partition(";")[0] for one in types] == ["text/css", "text/javascript"]


def test_it_is_not_in_the_api_document(client: TestClient) -> None:
    assert not [path for path in client.get("/openapi.json").json()["paths"] if "status" in path]


def test_a_service_without_an_instance_is_down(client: TestClient) -> None:
    assert process(client, "polls")["state"] == "down"


def test_an_instance_has_the_status_of_the_registry_at_the_first_look(client: TestClient) -> None:
    tell(client, instance(1, "timelines", Status.DEGRADED))

    assert process(client, "timelines")["state"] == "degraded"


def test_what_an_instance_measures_is_shown(client: TestClient, start: Callable[..., Upstream]) -> None:
    upstream = start("timelines")
    upstream.behaviour = counting()
    tell(client, upstream.as_instance())

    shown = eventually(lambda: (one := process(client, "timelines"))["per_second"] and one)

    assert (shown["state"], shown["version"], shown["failure"]) == ("up", "9.8.7+abcdef0", "")
    assert shown["per_second"] > shown["errors_per_second"] > 0
    assert (shown["p50_seconds"], shown["p99_seconds"]) == (0.05, 0.099)
    assert shown["last_minute"]
    assert shown["age_seconds"] > 1e6
    assert "<polyline" in client.get("/status").text


def test_a_process_that_is_no_service_is_a_worker(client: TestClient, start: Callable[..., Upstream]) -> None:
    tell(client, start("posts_worker").as_instance())

    report = client.get("/status", headers=AS_JSON).json()

    assert [one["name"] for one in report["workers"]] == ["posts_worker"]


def test_a_stopped_instance_is_silent_and_then_gone_for_a_minute(
    client: TestClient, start: Callable[..., Upstream]
) -> None:
    upstream = start("timelines")
    upstream.behaviour = says(exposition())
    tell(client, upstream.as_instance())
    eventually(lambda: process(client, "timelines")["version"])

    upstream.behaviour = Answer.reset
    upstream.close()
    silent = eventually(lambda: (one := process(client, "timelines"))["state"] == "silent" and one)
    tell(client)
    gone = process(client, "timelines")

    assert silent["failure"] == "it does not answer"
    assert (gone["state"], gone["version"]) == ("gone", "9.8.7+abcdef0")


@pytest.mark.parametrize(
    ("behaviour", "state", "failure"),
    [
        (lambda answer: answer.reply(403), "up", "it needs the same STATUS_TOKEN"),
        (lambda answer: answer.reply(404), "up", "METRICS is off"),
        (lambda answer: answer.reply(599), "up", "it answers 599"),
        (lambda answer: answer.reply(302, headers=(("Location", "/x"),)), "up", "it answers 302"),
        (says(b"process_start_time_seconds x\n"), "silent", "what it measures cannot be read"),
        (says(b"\xff"), "silent", "what it measures cannot be read"),
        (says(b"x" * (scraper.MAX_BYTES + 1)), "silent", "what it measures cannot be read"),
        (Answer.reset, "silent", "it does not answer"),
        (Answer.hang_until_left, "silent", "it does not answer"),
        (lambda answer: answer.drip([b"#"] * 100, 0.1), "silent", "it does not answer"),
    ],
    ids=["403", "404", "599", "302", "no number", "no UTF-8", "too much", "reset", "hangs", "drips"],
)
def test_why_an_instance_cannot_be_read_is_shown(
    client: TestClient,
    start: Callable[..., Upstream],
    behaviour: Callable[[Answer], None],
    state: str,
    failure: str,
) -> None:
    upstream = start("timelines")
    upstream.behaviour = behaviour
    tell(client, upstream.as_instance())

    shown = eventually(lambda: (one := process(client, "timelines"))["failure"] and one)

    assert (shown["state"], shown["failure"]) == (state, failure)


def test_one_instance_that_hangs_delays_neither_the_page_nor_the_others(
    client: TestClient, start: Callable[..., Upstream]
) -> None:
    hung, well = start("timelines"), start("polls")
    hung.behaviour = Answer.hang_until_left
    well.behaviour = says(exposition())
    tell(client, hung.as_instance(), well.as_instance())

    assert eventually(lambda: process(client, "polls")["version"])
    assert process(client, "timelines")["instance"]


def test_what_an_instance_says_is_escaped(client: TestClient, start: Callable[..., Upstream]) -> None:
    upstream = start("timelines")
    upstream.behaviour = says(exposition(store="<script>alert(1)</script>").replace(b"9.8.7", b"<b>'&"))
    tell(client, upstream.as_instance())

    page = eventually(lambda: (text := client.get("/status").text).count("alert(1)") and text)

    assert "<script>alert" not in page
    assert "<b>" not in page
    assert "&lt;b&gt;&#x27;&amp;" in page


def test_an_instance_on_this_machine_is_not_sent_the_token(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., Upstream]
) -> None:
    monkeypatch.setattr(scraper, "SCRAPE_SECONDS", 0.05)
    upstream = start("timelines")
    with make(status_token="sesame") as client:
        tell(client, upstream.as_instance())
        client.get("/status")
        eventually(lambda: upstream.requests)

    assert upstream.requests[0].path == "/metrics"
    assert "Authorization" not in upstream.requests[0].headers


def test_an_instance_on_another_machine_is_sent_the_token(
    monkeypatch: pytest.MonkeyPatch, start: Callable[..., Upstream], addresses: dict[str, list[str]]
) -> None:
    monkeypatch.setattr(scraper, "SCRAPE_SECONDS", 0.05)
    addresses["elsewhere.example"] = ["127.0.0.1"]
    upstream = start("timelines")
    with make(status_token="sesame") as client:
        tell(client, instance(upstream.server_port, "timelines", host="elsewhere.example"))
        client.get("/status")
        eventually(lambda: upstream.requests)

    assert upstream.requests[0].headers["Authorization"] == "Bearer sesame"


def test_a_registry_is_shown_without_the_credentials_of_its_url() -> None:
    app = gateway.create_app(
        gateway.GatewaySettings(_env_file=None, registry_url="http://operator:secret@127.0.0.1:1")
    )
    with TestClient(app, client=HERE, base_url="http://localhost:8080") as client:
        registry = process(client, "registry")

    assert registry["instance"] == "127.0.0.1:1"


def test_nothing_is_scraped_before_a_look(client: TestClient, start: Callable[..., Upstream]) -> None:
    upstream = start("timelines")
    tell(client, upstream.as_instance())
    for _ in range(20):
        client.get("/health")

    assert not client.app.state.scraper.is_scraping
    assert upstream.requests == []


def test_a_refused_look_scrapes_nothing() -> None:
    with make(ELSEWHERE) as client:
        client.get("/status")

        assert not client.app.state.scraper.is_scraping


def test_scraping_ends_a_minute_after_the_last_look_and_all_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, client: TestClient, start: Callable[..., Upstream]
) -> None:
    monkeypatch.setattr(scraper, "LOOK_SECONDS", 0.2)
    tell(client, start("timelines").as_instance())
    client.get("/status")

    eventually(lambda: not client.app.state.scraper.is_scraping)

    assert client.app.state.scraper.histories == []


def test_many_instances_that_come_and_go_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    monkeypatch.setattr(scraper, "MAX_TARGETS", 5)
    sizes = []
    for number in range(10):
        tell(client, *(instance(20 * number + port + 1, "timelines") for port in range(number % 4 * 3)))
        client.get("/status")
        sizes.append(len(client.app.state.scraper.histories))

    assert max(sizes) == 5
