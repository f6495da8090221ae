"""Spans as a real collector gets them, and what happens where there is none."""

import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import server_processes
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.server.middleware import RequestContext
from common.settings import ServiceSettings
from common.telemetry import context, otlp
from common.telemetry.instruments import Histogram
from common.telemetry.logging import JsonFormatter, TextFormatter
from common.telemetry.traces import Traced
from tests.hung_server import hung_server
from tests.otlp_receiver import Receiver, receiver
from tests.polling import eventually
from tests.scrape import growth

ROOT = Path(__file__).parents[3]
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = (f"00-{TRACE_ID}-{SPAN_ID}-{flags}" for flags in ("01", "00"))

stored = Histogram(
    "store_seconds", "Time.", "db.system.name", "error.type", bounds=(1.0,), span=Traced("CLIENT", "ask {0}")
)


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with receiver() as collector:
        yield collector


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set variables of OpenTelemetry's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")

    def set_all(**given: str) -> None:
        for name, value in given.items():
            monkeypatch.setenv(f"OTEL_{name}", value)

    return set_all


@pytest.fixture
def trace(collector: Receiver, variables: Callable[..., None]) -> Callable[..., None]:
    """Set more variables, and where the collector is."""
    return lambda **given: variables(EXPORTER_OTLP_ENDPOINT=collector.url, **given)


@contextmanager
def tracing() -> Iterator[None]:
    """As the environment says."""
    with ServiceSettings(_env_file=None, port=1).tracing("shelf"):
        yield


@contextmanager
def served(trusts_sampling: bool = True) -> Iterator[TestClient]:
    """An app that is traced."""
    app = FastAPI()

    @app.get("/books/{book_id}")
    def book(book_id: str) -> dict[str, str]:
        with stored.time("shelf", errors=(KeyError,)):
            if book_id == "lost":
                raise KeyError
        return context.outgoing_headers()

    app.add_middleware(RequestContext, quiet_paths=("/books/quiet",), trusts_sampling=trusts_sampling)
    with tracing(), TestClient(app, raise_server_exceptions=False) as client:
        yield client


def at(trace: str) -> tuple[str, str]:
    """The position that a `traceparent` says."""
    return trace[3:35], trace[36:52]


def test_a_request_and_what_it_asks_a_store_for_are_a_tree_under_the_clients_span(
    collector: Receiver, trace: Callable[..., None]
) -> None:
    trace()
    with served() as client:
        answer = client.get("/books/1", headers={"traceparent": SAMPLED})
        request = collector.wait_for("GET /books/{book_id}", TRACE_ID)
        asked = collector.wait_for("ask shelf", TRACE_ID)

    assert (request.kind, request.parent_id) == ("SERVER", SPAN_ID)
    assert (asked.kind, asked.parent_id) == ("CLIENT", request.position[1])
    assert at(answer.headers["traceparent"]) == at(answer.json()["traceparent"]) == request.position


def test_a_span_has_the_attributes_of_the_conventions_and_nothing_of_the_query(
    collector: Receiver, trace: Callable[..., None]
) -> None:
    trace()
    with served() as client:
        answer = client.get("/books/2?access_token=sesame")
        trace_id, _ = at(answer.headers["traceparent"])
        request = collector.wait_for("GET /books/{book_id}", trace_id)
        asked = collector.wait_for("ask shelf", trace_id)

    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/books/{book_id}",
        "http.response.status_code": 200,
        "url.path": "/books/2",
        "url.scheme": "http",
    }
    assert (request.parent_id, asked.attributes) == ("", {"db.system.name": "shelf"})
    assert not any(b"sesame" in body for body in collector.bodies)


def test_what_fails_says_the_type_of_its_error_and_no_more(
    collector: Receiver, trace: Callable[..., None]
) -> None:
    trace()
    with served() as client:
        trace_id, _ = at(client.get("/books/lost").headers["traceparent"])
        request = collector.wait_for("GET /books/{book_id}", trace_id)
        asked = collector.wait_for("ask shelf", trace_id)

    assert [one.is_error for one in (request, asked)] == [True, True]
    assert [one.attributes["error.type"] for one in (request, asked)] == ["500", "KeyError"]


def test_a_process_is_named_unless_the_variables_name_it(
    collector: Receiver, trace: Callable[..., None]
) -> None:
    trace(RESOURCE_ATTRIBUTES="deployment.environment.name=test,service.version=mine")
    with tracing(), stored.time("shelf"):
        context.start(trace=SAMPLED)
        with stored.time("named"):
            pass
        seen = collector.wait_for("ask named")

    assert (seen.resource["service.name"], seen.resource["service.namespace"]) == ("shelf", "microblog")
    assert seen.resource["service.instance.id"] == "127.0.0.1:1"
    assert (seen.resource["deployment.environment.name"], seen.resource["service.version"]) == (
        "test",
        "mine",
    )


def test_the_file_of_settings_has_variables_for_the_sdk_too(
    collector: Receiver, variables: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "")
    Path(".env").write_text(
        f"OTEL_EXPORTER_OTLP_ENDPOINT={collector.url}\nOTEL_EXPORTER_OTLP_HEADERS=X-Key=mine\n"
        "OTEL_SERVICE_NAME=library\n"
    )
    monkeypatch.delenv("OTEL_SERVICE_NAME")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_HEADERS")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    with ServiceSettings(port=1).tracing("shelf"):
        context.start(trace=SAMPLED)
        with stored.time("by file"):
            pass
        seen = collector.wait_for("ask by file")

    assert seen.service == "library"
    assert collector.headers["x-key"] == "mine"


@pytest.mark.parametrize(
    ("sampler", "received", "flags"),
    [
        ("parentbased_always_on", UNSAMPLED, "00"),
        ("parentbased_always_off", SAMPLED, "01"),
        ("parentbased_always_off", "", "00"),
        ("parentbased_always_on", "", "01"),
        ("always_off", SAMPLED, "00"),
        ("always_on", UNSAMPLED, "01"),
    ],
)
def test_a_service_goes_by_its_caller_as_the_sampler_says(
    trace: Callable[..., None], sampler: str, received: str, flags: str
) -> None:
    trace(TRACES_SAMPLER=sampler)
    with served() as client:
        answer = client.get("/books/3", headers={"traceparent": received} if received else {})

    assert answer.json()["traceparent"][-2:] == answer.headers["traceparent"][-2:] == flags


@pytest.mark.parametrize(
    "given",
    [
        {"TRACES_SAMPLER": "jaeger_remote"},
        {"TRACES_SAMPLER": "parentbased_traceidratio", "TRACES_SAMPLER_ARG": "a tenth"},
        {"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "1.5"},
    ],
)
def test_a_sampler_that_is_not_known_is_warned_of_and_ignored(
    trace: Callable[..., None], caplog: pytest.LogCaptureFixture, given: dict[str, str]
) -> None:
    trace(**given)
    with served() as client:
        answer = client.get("/books/3")

    assert answer.headers["traceparent"].endswith("-01")
    [warning] = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert warning.startswith("OTEL_TRACES_SAMPLER")


@pytest.mark.parametrize(("ratio", "received"), [("0", SAMPLED), ("1", UNSAMPLED)])
def test_a_client_from_outside_does_not_say_what_is_sampled_but_keeps_its_trace(
    trace: Callable[..., None], ratio: str, received: str
) -> None:
    trace(TRACES_SAMPLER="parentbased_traceidratio", TRACES_SAMPLER_ARG=ratio)
    with served(trusts_sampling=False) as client:
        answer = client.get("/books/4", headers={"traceparent": received})

    assert at(answer.headers["traceparent"])[0] == TRACE_ID
    assert answer.json()["traceparent"].endswith(f"-0{ratio}")


def test_a_client_cannot_choose_an_id_that_is_sampled(trace: Callable[..., None]) -> None:
    trace(TRACES_SAMPLER="parentbased_traceidratio", TRACES_SAMPLER_ARG="0.000001")
    chosen = f"00-{'1' * 16}{'0' * 16}-{SPAN_ID}-01"
    with served(trusts_sampling=False) as client:
        answer = client.get("/books/5", headers={"traceparent": chosen})

    assert answer.json()["traceparent"].endswith("-00")


def test_what_is_not_sampled_is_not_exported(collector: Receiver, trace: Callable[..., None]) -> None:
    trace()
    with served() as client:
        client.get("/books/6", headers={"traceparent": f"00-{'6' * 32}-{SPAN_ID}-00"})
        client.get("/books/7", headers={"traceparent": f"00-{'7' * 32}-{SPAN_ID}-01"})
        collector.wait_for("GET /books/{book_id}", "7" * 32)

    assert not collector.spans("6" * 32)


def test_what_machines_ask_for_all_the_time_is_not_traced(trace: Callable[..., None]) -> None:
    trace()
    with served() as client:
        answer = client.get("/books/quiet")

    assert answer.json()["traceparent"].endswith("-00")


def test_work_that_no_request_has_caused_makes_no_spans(trace: Callable[..., None]) -> None:
    trace()
    with tracing():
        context.traceparent.set("")
        with stored.time("alone"):
            inside = context.traceparent.get()

    assert inside == ""


def test_a_job_whose_handling_this_process_does_not_sample_makes_no_spans(trace: Callable[..., None]) -> None:
    trace(TRACES_SAMPLER="always_off")
    with tracing():
        context.resume("mine", SAMPLED)
        with stored.time("a job"):
            inside = context.traceparent.get()

    assert inside == UNSAMPLED


def test_after_a_span_its_parent_goes_on(trace: Callable[..., None]) -> None:
    trace()
    with tracing():
        context.start(trace=SAMPLED)
        with stored.time("first"):
            pass

        assert context.traceparent.get() == SAMPLED


def test_a_json_line_says_its_span_and_a_text_line_stays_as_it_is(trace: Callable[..., None]) -> None:
    trace()
    record = logging.LogRecord("tests", logging.INFO, __file__, 1, "it runs", (), None)
    context.start("mine", SAMPLED)
    before = TextFormatter().format(record)
    with tracing():
        line = json.loads(JsonFormatter().format(record))
        text = TextFormatter().format(record)

    assert (line["trace_id"], line["span_id"], line["traceparent"]) == (TRACE_ID, SPAN_ID, SAMPLED)
    assert text == before
    assert "trace_id" not in json.loads(JsonFormatter().format(record))


def test_a_json_line_of_a_trace_that_is_not_sampled_names_no_span(trace: Callable[..., None]) -> None:
    trace()
    context.start("mine", UNSAMPLED)
    with tracing():
        line = json.loads(JsonFormatter().format(logging.makeLogRecord({"name": "tests", "msg": "it runs"})))

    assert line["traceparent"] == UNSAMPLED
    assert not {"trace_id", "span_id"} & line.keys()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"EXPORTER_OTLP_ENDPOINT": ""},
        {"EXPORTER_OTLP_ENDPOINT": "http://x", "SDK_DISABLED": "true"},
        {"EXPORTER_OTLP_ENDPOINT": "http://x", "TRACES_EXPORTER": "none"},
    ],
)
def test_without_an_endpoint_or_when_it_is_disabled_nothing_is_traced(
    variables: Callable[..., None], given: dict[str, str]
) -> None:
    variables(**given)
    with served() as client:
        answer = client.get("/books/8", headers={"traceparent": SAMPLED})

    assert answer.json()["traceparent"] == answer.headers["traceparent"] == SAMPLED


@pytest.mark.starts
def test_where_nothing_is_exported_nothing_is_loaded() -> None:
    # FastAPI itself loads OpenTelemetry's API.
    program = """
import sys
from fastapi.testclient import TestClient
import gateway
with TestClient(gateway.create_app(gateway.GatewaySettings(_env_file=None, registry_url=None))) as client:
    client.get("/livez")
loaded = {"opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests"} & sys.modules.keys()
print(*loaded, file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stderr.split() == []


@contextmanager
def bad_collector(answer: bytes, is_endless: bool = False) -> Iterator[str]:
    """A server that gives each connection this answer, whatever it asks, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        is_over = False

        def serve() -> None:
            while not is_over:
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    _answer(connection, answer, is_endless)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            is_over = True
            thread.join()


def _answer(connection: socket.socket, answer: bytes, is_endless: bool) -> None:
    try:
        connection.recv(65536)
        connection.sendall(answer)
        while is_endless:
            connection.sendall(bytes(65536))
    except OSError:
        return  # the other side has had enough


def spend(count: int) -> None:
    """Make so many spans."""
    context.start(trace=SAMPLED)
    for _ in range(count):
        with stored.time("lost"):
            pass


def outcome(name: str) -> AbstractContextManager[Callable[[], float]]:
    return growth("microblog_spans_total", outcome=name)


@pytest.fixture
def closed_port() -> str:
    return f"http://127.0.0.1:{server_processes.free_port()}"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", id="not found"),
        pytest.param(b"HTTP/1.1 503 Away\r\nRetry-After: 999\r\nContent-Length: 0\r\n\r\n", id="away"),
        pytest.param(b"\x00\xff" * 5000, id="no HTTP"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", id="half a response"),
        pytest.param(b"HTTP/1.1 404 Gone\r\nX: 1\r\nno header\r\n\r\n", id="strange headers"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_collector_that_is_wrong_costs_the_spans_and_a_warning(
    variables: Callable[..., None], caplog: pytest.LogCaptureFixture, answer: bytes
) -> None:
    with bad_collector(answer) as url, outcome("lost") as lost, caplog.at_level(logging.WARNING):
        variables(EXPORTER_OTLP_ENDPOINT=url, EXPORTER_OTLP_TIMEOUT="0.5")
        with tracing():
            for number in (1, 2):
                spend(1)
                eventually(lambda seen=number: lost() == seen)

    assert [record.name for record in caplog.records] == [otlp.__name__]
    assert caplog.messages[0].startswith("spans get lost")


def test_a_collector_that_is_away_costs_the_spans(variables: Callable[..., None], closed_port: str) -> None:
    variables(EXPORTER_OTLP_ENDPOINT=closed_port, EXPORTER_OTLP_TIMEOUT="0.5")
    with outcome("lost") as lost, tracing():
        spend(3)
        eventually(lambda: lost() == 3)


def test_a_reply_without_an_end_is_not_read_to_the_end(variables: Callable[..., None]) -> None:
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    with bad_collector(head, is_endless=True) as url, outcome("exported") as exported:
        variables(EXPORTER_OTLP_ENDPOINT=url)
        with tracing():
            spend(1)
            eventually(lambda: exported() == 1)


def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(
    variables: Callable[..., None],
) -> None:
    with hung_server() as port, outcome("dropped") as dropped:
        variables(
            EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            EXPORTER_OTLP_TIMEOUT="600",
            BSP_MAX_QUEUE_SIZE="10",
            BSP_MAX_EXPORT_BATCH_SIZE="10",
        )
        with tracing():
            spend(30)

        assert dropped() == 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"BSP_MAX_QUEUE_SIZE": "ten"},
        {"BSP_MAX_QUEUE_SIZE": "10", "BSP_MAX_EXPORT_BATCH_SIZE": "20"},
        {"SPAN_LINK_COUNT_LIMIT": "-1"},
    ],
)
def test_a_wrong_variable_turns_traces_off_and_is_logged(
    trace: Callable[..., None], caplog: pytest.LogCaptureFixture, wrong: dict[str, str]
) -> None:
    trace(**wrong)
    with served() as client:
        answer = client.get("/books/9", headers={"traceparent": SAMPLED})

    assert answer.headers["traceparent"] == SAMPLED
    assert "no spans are exported" in caplog.text
