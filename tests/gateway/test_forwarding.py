"""What the gateway passes on, what it tries again, and what it never sends twice."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.discovery.models import Status
from common.gateway import forwarded_request, proxy, watchdog
from tests.polling import PATIENCE_SECONDS, eventually

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_method_path_query_and_body_pass_unchanged(client: TestClient, timelines) -> None:
    client.post("/posts?limit=5&x=%20", content=b'{"text": "hello"}')

    [request] = timelines.requests
    assert (request.command, request.path, request.body) == (
        "POST",
        "/posts?limit=5&x=%20",
        b'{"text": "hello"}',
    )


def test_an_escaped_path_is_not_quoted_anew(client: TestClient, timelines) -> None:
    client.get("/posts/%61%7Eb%2Fc")

    assert timelines.requests[0].path == "/posts/%61%7Eb%2Fc"


def test_status_body_and_repeated_headers_come_back_unchanged(client: TestClient, timelines) -> None:
    timelines.behaviour = lambda answer: answer.reply(418, b"short", (("X-A", "1"), ("X-A", "2")))

    answer = client.get("/posts")

    assert (answer.status_code, answer.content, answer.headers.get_list("X-A")) == (418, b"short", ["1", "2"])


def test_a_redirect_is_the_clients_to_follow(client: TestClient, timelines) -> None:
    timelines.behaviour = lambda answer: answer.reply(307, headers=(("Location", "/posts/elsewhere"),))

    assert client.get("/posts", follow_redirects=False).headers["Location"] == "/posts/elsewhere"
    assert len(timelines.requests) == 1


def test_a_failure_of_the_proxy_itself_is_a_500(
    app: FastAPI, timelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(proxy.ReverseProxy, "_try_instances", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        response = client.get("/posts", headers={"X-Request-ID": "mine"})

    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert response.headers.get_list("X-Request-ID") == ["mine"]


def test_headers_of_one_hop_go_no_further(client: TestClient, timelines) -> None:
    client.get(
        "/posts", headers={"Connection": "X-Private", "X-Private": "1", "TE": "trailers", "Keep-Alive": "5"}
    )

    names = {name.lower() for name in timelines.requests[0].headers}
    assert names.isdisjoint({"x-private", "te", "keep-alive"})


def test_headers_of_the_upstreams_hop_come_no_further(client: TestClient, timelines) -> None:
    timelines.behaviour = lambda answer: answer.reply(
        headers=(("Connection", "X-Private"), ("X-Private", "1"))
    )

    answer = client.get("/posts")

    assert "x-private" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_header_is_added_that_the_client_did_not_send(client: TestClient, timelines, method: str) -> None:
    client.headers.clear()
    client.request(method, "/posts")

    assert {name.lower() for name in timelines.requests[0].headers} - {"content-length"} == {
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
        "traceparent",
    }


def test_forwarded_headers_of_a_client_are_replaced(client: TestClient, timelines) -> None:
    client.get("/posts", headers={"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"})

    headers = timelines.requests[0].headers
    assert (headers.get_all("X-Forwarded-For"), headers["Forwarded"]) == (["testclient"], None)


def test_a_cookie_of_one_user_is_not_sent_for_the_next(client: TestClient, timelines) -> None:
    timelines.behaviour = lambda answer: answer.reply(headers=(("Set-Cookie", "sid=alice"),))
    client.get("/posts")
    client.cookies.clear()
    client.get("/posts")

    assert timelines.requests[1].headers["Cookie"] is None


@pytest.mark.parametrize(("header", "value"), [("X-Request-ID", "mine"), ("traceparent", TRACE)])
def test_id_and_trace_are_passed_on_and_returned_once(
    client: TestClient, timelines, header: str, value: str
) -> None:
    timelines.behaviour = lambda answer: answer.reply(headers=((header, "upstream"),))

    answer = client.get("/posts", headers={header: value})

    assert timelines.requests[0].headers[header] == value
    assert answer.headers.get_list(header) == [value]


@pytest.mark.parametrize(("trace", "state"), [(TRACE, "a=1"), ("junk", None), (None, None)])
def test_the_state_of_a_trace_is_passed_on_with_it_only(
    client: TestClient, timelines, trace: str | None, state: str | None
) -> None:
    client.get("/posts", headers={"tracestate": "a=1"} | ({"traceparent": trace} if trace else {}))

    assert timelines.requests[0].headers["tracestate"] == state


def test_a_long_body_streams_through(client: TestClient, timelines) -> None:
    client.post("/posts", content=(b"x" * 50_000 for _ in range(10)))

    assert timelines.requests[0].body == b"x" * 500_000


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_413(client: TestClient, timelines, chunked: bool) -> None:
    body = b"x" * (forwarded_request.MAX_BODY_BYTES + 1)

    answer = client.post("/posts", content=iter([body]) if chunked else body)

    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/posts/%2e%2e", "/posts/..%2Fregister", "/posts/%2E"])
def test_dot_segments_are_refused(client: TestClient, timelines, path: str) -> None:
    assert client.get(path).json()["code"] == "dot_segment"


def test_an_unknown_path_is_404(client: TestClient, timelines) -> None:
    assert client.get("/nowhere").json()["code"] == "not_found"


@pytest.mark.parametrize("call", ["/services", "/heartbeat/1", "/deregister/1"])
def test_the_registrys_calls_cannot_be_reached(client: TestClient, timelines, call: str) -> None:
    assert client.post(call).status_code == 404


def test_a_service_without_instances_is_503(client: TestClient) -> None:
    answer = client.get("/posts")

    assert (answer.status_code, answer.json()["code"]) == (503, "timelines_unavailable")
    assert answer.headers["Retry-After"]


def test_a_services_own_503_is_passed_on(client: TestClient, timelines) -> None:
    timelines.behaviour = lambda answer: answer.reply(503, b'{"code": "postgres_unavailable"}')

    answer = client.get("/posts")

    assert (answer.status_code, answer.json()["code"]) == (503, "postgres_unavailable")
    assert len(timelines.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_tried_elsewhere(client: TestClient, start, listed, method: str) -> None:
    gone, there = start("timelines"), start("timelines")
    gone.close()
    listed(gone.as_instance(), there.as_instance())

    answers = [client.request(method, "/posts", json={}).status_code for _ in range(8)]

    assert answers == [200] * 8


def _broken_and_well(start: Callable, listed: Callable) -> tuple:
    broken, well = start("timelines"), start("timelines")
    broken.behaviour = lambda answer: answer.reset()
    listed(broken.as_instance(), well.as_instance())
    return broken, well


def test_a_get_that_broke_off_is_tried_elsewhere(client: TestClient, start, listed) -> None:
    broken, _ = _broken_and_well(start, listed)

    answers = {client.get("/posts").status_code for _ in range(20)}

    assert answers == {200}
    assert broken.requests


def test_a_post_that_broke_off_is_502_and_not_sent_again(client: TestClient, start, listed) -> None:
    broken, well = _broken_and_well(start, listed)

    answers = [client.post("/posts", json={}).status_code for _ in range(20)]

    assert len(broken.requests) == answers.count(502) > 0
    assert len(well.requests) == answers.count(200)


def test_a_post_with_a_key_is_tried_elsewhere(client: TestClient, start, listed) -> None:
    broken, _ = _broken_and_well(start, listed)

    answers = {
        client.post("/posts", json={}, headers={"Idempotency-Key": "1"}).status_code for _ in range(20)
    }

    assert answers == {200}
    assert broken.requests


def test_a_key_means_nothing_where_it_is_not_honoured(client: TestClient, timelines) -> None:
    timelines.behaviour = lambda answer: answer.reset()

    answer = client.post("/posts/async", json={}, headers={"Idempotency-Key": "1"})

    assert (answer.status_code, len(timelines.requests)) == (502, 1)


@pytest.mark.usefixtures("ejected_for_good")
def test_an_instance_that_keeps_breaking_is_passed_over(client: TestClient, start, listed) -> None:
    broken, _ = _broken_and_well(start, listed)

    def ask_often() -> int:
        for _ in range(40):
            client.get("/posts")
        return len(broken.requests)

    assert ask_often() == ask_often()


def test_a_draining_instance_gets_nothing(client: TestClient, start, listed) -> None:
    draining, up = start("timelines"), start("timelines")
    listed(draining.as_instance(Status.DRAINING), up.as_instance())

    for _ in range(10):
        client.get("/posts")

    assert (len(draining.requests), len(up.requests)) == (0, 10)


@pytest.mark.parametrize("status", [Status.DEGRADED, Status.SUSPECT])
def test_a_degraded_or_suspect_instance_is_used(client: TestClient, start, listed, status: Status) -> None:
    upstream = start("timelines")
    listed(upstream.as_instance(status))

    assert client.get("/posts").status_code == 200


def test_requests_spread_over_all_instances(client: TestClient, start, listed) -> None:
    upstreams = [start("timelines") for _ in range(3)]
    listed(*(upstream.as_instance() for upstream in upstreams))

    for _ in range(60):
        client.get("/posts")

    assert min(len(upstream.requests) for upstream in upstreams) > 5


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "WATCH_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "REQUEST_TIMEOUT_SECONDS", 1.5)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_instance_that_hangs_is_504_in_time(client: TestClient, timelines, hurried, method: str) -> None:
    timelines.behaviour = lambda answer: answer.hang()

    answer = client.request(method, "/posts", json={})

    assert (answer.status_code, answer.json()["code"]) == (504, "timeout")
    assert len(timelines.requests) == 1


def test_a_service_that_hangs_with_all_that_it_may_hold_up_is_503(
    client: TestClient, start, listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONCURRENT_REQUESTS", 2)
    monkeypatch.setattr(proxy, "MAX_WAIT_SECONDS", 0.05)
    polls, timelines = start("polls"), start("timelines")
    listed(polls.as_instance(), timelines.as_instance())
    polls.behaviour = lambda answer: (answer.server.end.wait(), answer.reply())
    with ThreadPoolExecutor(2) as crowd:
        for _ in range(2):
            crowd.submit(client.get, "/polls")
        eventually(lambda: len(polls.requests) == 2)
        refused, other = client.get("/polls"), client.get("/posts")
        polls.end.set()

    assert (refused.status_code, refused.json()["code"]) == (503, "polls_overloaded")
    assert refused.headers["Retry-After"]
    assert other.status_code == 200


def test_an_answer_that_has_begun_may_take_longer(client: TestClient, timelines, hurried) -> None:
    timelines.behaviour = lambda answer: answer.drip([b"a", b"b"], seconds=2)

    assert client.get("/posts").content == b"ab"


def test_a_client_that_goes_away_frees_its_connection(app: FastAPI, timelines, hurried) -> None:
    hung = threading.Event()
    timelines.behaviour = lambda answer: (answer.hang_until_left(), hung.set())
    sent: list[object] = []

    async def ask_and_leave() -> None:
        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/posts",
            "raw_path": b"/posts",
            "query_string": b"",
            "headers": [(b"content-length", b"0")],
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        async with app.state.api_document._transport:
            await app(scope, receive, send)

    anyio.run(ask_and_leave)

    assert hung.wait(PATIENCE_SECONDS)
    assert sent == []
