"""One id and one trace from the first request to the last line of a log."""

import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.server.middleware import RequestContext
from common.telemetry import context
from common.telemetry.logging import JsonFormatter, TextFormatter, configure_logging

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MADE_TRACE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    app = FastAPI()
    app.add_middleware(RequestContext)

    @app.get("/outgoing")
    def outgoing() -> dict[str, str]:
        return context.outgoing_headers()

    with TestClient(app) as client:
        yield client


def _record(message: str, *arguments: object, failure: Exception | None = None) -> logging.LogRecord:
    about = (type(failure), failure, None) if failure else None
    return logging.LogRecord("tests", logging.WARNING, __file__, 1, message, arguments, about)


def test_id_and_trace_are_passed_on(client: TestClient) -> None:
    given = {"X-Request-ID": "mine", "traceparent": TRACE}

    assert client.get("/outgoing", headers=given).json() == given


def test_without_them_they_are_made_anew_for_each_request(client: TestClient) -> None:
    first, second = (client.get("/outgoing") for _ in range(2))

    assert re.fullmatch("[0-9a-f]{32}", first.json()["X-Request-ID"])
    assert MADE_TRACE.fullmatch(first.json()["traceparent"])
    assert first.json()["X-Request-ID"] != second.json()["X-Request-ID"]
    assert first.json()["traceparent"] != second.json()["traceparent"]


@pytest.mark.parametrize("header", ["X-Request-ID", "traceparent"])
def test_id_and_trace_are_returned(client: TestClient, header: str) -> None:
    answer = client.get("/outgoing")

    assert answer.headers[header] == answer.json()[header]


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        "x",
        TRACE.upper(),
        TRACE + "-00",
        TRACE[:-1],
        "ff" + TRACE[2:],
        "00-" + "0" * 32 + TRACE[35:],
        TRACE[:36] + "0" * 16 + "-01",
    ],
)
def test_a_malformed_trace_is_replaced(client: TestClient, malformed: str) -> None:
    made = client.get("/outgoing", headers={"traceparent": malformed}).json()["traceparent"]

    assert MADE_TRACE.fullmatch(made)
    assert made != malformed


def test_a_line_for_machines_has_its_id_and_trace() -> None:
    context.start("mine", TRACE)
    entry = json.loads(JsonFormatter().format(_record("a %s", "message")))

    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "warning",
        "logger": "tests",
        "message": "a message",
        "request_id": "mine",
        "traceparent": TRACE,
    }


def test_a_line_for_people_has_its_id() -> None:
    context.start("mine")

    assert TextFormatter().format(_record("a %s", "message")).endswith("WARNING tests: a message [mine]")


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("put_in", ["a\nb", "a\r\nb", "a\x85b\ud800"])
def test_an_event_is_a_line_whatever_a_client_put_into_it(formatter: logging.Formatter, put_in: str) -> None:
    line = formatter.format(_record("name: %s", put_in))

    assert "\n" not in line
    assert "\r" not in line


def test_a_json_line_says_which_process_it_is_of() -> None:
    process = {"service": "users", "instance": "127.0.0.1:5100", "version": "1.0.0"}

    line = json.loads(JsonFormatter(process).format(_record("it runs")))

    assert process.items() <= line.items()


def test_a_json_access_line_has_its_fields(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "access"):
        client.get("/outgoing?x=1")

    line = json.loads(JsonFormatter().format(caplog.records[-1]))
    assert line["duration"] >= 0
    assert line["bytes"] > 0
    assert {name: line[name] for name in ("method", "route", "status", "client")} == {
        "method": "GET",
        "route": "/outgoing",
        "status": 200,
        "client": "testclient",
    }


def test_a_text_access_line_has_no_more_than_its_message(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "access"):
        client.get("/outgoing")

    assert re.search(r" access: GET /outgoing 200 \d+\.\d ms \[", TextFormatter().format(caplog.records[-1]))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_failure_is_logged_with_its_reason(formatter: logging.Formatter) -> None:
    assert "the reason" in formatter.format(_record("it failed", failure=RuntimeError("the reason")))


@pytest.mark.parametrize(
    ("is_terminal", "form", "formatter"),
    [
        (True, None, TextFormatter),
        (False, None, JsonFormatter),
        (True, "json", JsonFormatter),
        (False, "text", TextFormatter),
    ],
)
def test_a_terminal_gets_text_and_the_rest_json_unless_it_is_set(
    root_logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    is_terminal: bool,
    form: str | None,
    formatter: type[logging.Formatter],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    configure_logging("info", form)

    assert [type(handler.formatter) for handler in root_logger.handlers] == [formatter]


def test_the_level_is_the_one_that_is_set(root_logger: logging.Logger) -> None:
    configure_logging("error", "text")

    assert root_logger.level == logging.ERROR
