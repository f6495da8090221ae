"""What a line of the access log says, whatever the request was."""

import json
import logging

from common.server.access_log import AccessRecord
from common.telemetry.logging import JsonFormatter

SCOPE = {"method": "GET", "raw_path": b"/users/alice", "client": ("192.0.2.1", 4711)}


def _line(**differing: object) -> dict[str, object]:
    record = AccessRecord(logging.INFO, SCOPE | differing, "/users/{username}", 200, 0.0123456789, 42)
    line = json.loads(JsonFormatter().format(record))
    assert isinstance(line, dict)
    return line


def test_a_line_says_what_the_request_was_and_what_became_of_it() -> None:
    line = _line()

    assert line.pop("time")
    assert {name: line[name] for name in line.keys() - {"request_id", "traceparent"}} == {
        "level": "info",
        "logger": "access",
        "message": "GET /users/alice 200 12.3 ms",
        "method": "GET",
        "route": "/users/{username}",
        "status": 200,
        "duration": 0.012346,
        "bytes": 42,
        "client": "192.0.2.1",
    }


def test_a_line_of_a_head_has_no_bytes() -> None:
    assert _line(method="HEAD")["bytes"] == 0


def test_a_line_is_json_whatever_the_client_sent() -> None:
    line = _line(method='A"B', raw_path=b'/a"\\\xff')

    assert (line["method"], line["message"]) == ('A"B', 'A"B /a"\\\\xff 200 12.3 ms')


def test_a_client_without_an_address_has_none() -> None:
    assert _line(client=None)["client"] == ""


def test_a_record_has_what_any_formatter_of_logging_may_want() -> None:
    wanted = "%(asctime)s.%(msecs)d %(name)s %(levelname)s %(filename)s:%(lineno)d %(threadName)s %(message)s"
    record = AccessRecord(logging.DEBUG, SCOPE, "/users/{username}", 200, 0.001, 42)

    assert logging.Formatter(wanted).format(record).endswith("GET /users/alice 200 1.0 ms")
