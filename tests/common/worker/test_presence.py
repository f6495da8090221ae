"""A worker as others see it: its port, its health, its place in the registry."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import httpx2
import pytest
import server_processes
import uvicorn

from common.discovery.registration import PROCESS_ID, PROCESS_ID_HEADER
from common.errors import CannotServe
from common.jobs.conditions import Conditions, conditions
from common.settings import ServiceSettings
from common.worker import listener
from common.worker.presence import present
from registry_service.app import create_app
from registry_service.settings import RegistrySettings
from tests import plain_http
from tests.polling import eventually


class ShelfAway(Exception):
    """The shelf cannot be reached."""


class Full(CannotServe, ShelfAway):
    """The shelf takes nothing."""


NEEDS = {"shelf": (ShelfAway,), "queue": (OSError,)}


@contextmanager
def working(stop: Event | None = None, **settings: object) -> Iterator[str]:
    """A worker that is present; the URL of its port."""
    port = settings.setdefault("port", server_processes.free_port())
    settings.setdefault("registry_url", "")
    with present("shelf_worker", ServiceSettings(_env_file=None, **settings), NEEDS, stop or Event()):
        eventually(lambda: not server_processes.is_free(port))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def worker() -> Iterator[str]:
    with working() as url:
        yield url


@pytest.fixture(autouse=True)
def no_outage() -> Iterator[None]:
    yield
    conditions.over("loop")


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that listens; its URL."""
    port = server_processes.free_port()
    app = create_app(RegistrySettings(_env_file=None, port=port))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    app.state.watchers.stop()
    server.should_exit = True
    thread.join()


def statuses(registry: str) -> list[str]:
    services = plain_http.get(f"{registry}/services").json()["services"]
    return [one["status"] for one in services.get("shelf_worker", [])]


def test_it_says_that_it_runs_and_which_process_it_is(worker: str) -> None:
    answer = plain_http.get(f"{worker}/livez")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers[PROCESS_ID_HEADER] == PROCESS_ID


def test_it_is_healthy_until_a_loop_meets_an_outage(worker: str) -> None:
    before = plain_http.get(f"{worker}/health")
    conditions.met("loop", Full("has no room"))
    meanwhile = plain_http.get(f"{worker}/health")
    conditions.over("loop")
    after = plain_http.get(f"{worker}/health")

    assert [one.status_code for one in (before, meanwhile, after)] == [200, 503, 200]
    assert before.json()["checks"] == {"shelf": "ok", "queue": "ok"}
    assert meanwhile.json()["checks"] == {"shelf": "unavailable", "queue": "ok"}
    assert meanwhile.json()["reasons"] == {"shelf": "has no room"}


def test_it_is_measured(worker: str) -> None:
    answer = plain_http.get(f"{worker}/metrics")

    assert "\nprocess_cpu_seconds_total " in answer.text


def test_a_client_behind_a_proxy_may_not_read_what_is_measured(worker: str) -> None:
    answer = plain_http.get(f"{worker}/metrics", headers={"X-Forwarded-For": "127.0.0.1"})

    assert (answer.status_code, answer.json()["code"]) == (403, "operators_only")


def test_the_token_opens_what_is_measured() -> None:
    headers = {"X-Forwarded-For": "192.0.2.1", "Authorization": "Bearer sesame"}
    with working(status_token="sesame") as url:
        answer = plain_http.get(f"{url}/metrics", headers=headers)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("HEAD", "/livez", 200), ("POST", "/health", 405), ("GET", "/", 404), ("GET", "/livez?x=1", 200)],
)
def test_other_requests_have_their_status(worker: str, method: str, path: str, status: int) -> None:
    with httpx2.Client(trust_env=False) as client:
        answer = client.request(method, f"{worker}{path}")

    assert answer.status_code == status


@pytest.mark.parametrize("junk", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\xff \xfe\r\n\r\n"])
def test_junk_is_a_bad_request(worker: str, junk: bytes) -> None:
    assert _send(worker, junk).startswith(b"HTTP/1.1 400 ")


def test_a_head_without_an_end_is_cut_off(worker: str) -> None:
    assert _send(worker, b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * listener.MAX_HEAD_BYTES) == b""


def test_a_slow_client_is_cut_off_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch, worker: str) -> None:
    monkeypatch.setattr(listener, "TIMEOUT_SECONDS", 0.2)
    with socket.create_connection(_address(worker)) as slow:
        slow.sendall(b"GET /livez HTTP/1.1\r\n")
        answer = plain_http.get(f"{worker}/livez")

        assert answer.status_code == 200
        assert slow.recv(1) == b""


def test_more_connections_than_there_may_be_are_closed(monkeypatch: pytest.MonkeyPatch, worker: str) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 1)
    with socket.create_connection(_address(worker)):
        eventually(lambda: _send(worker, b"GET /livez HTTP/1.1\r\n\r\n") == b"")


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def _send(url: str, data: bytes) -> bytes:
    """All that comes back, whether or not the other end reads it all."""
    with socket.create_connection(_address(url)) as connection:
        try:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except OSError:
            return b""


def test_it_is_registered_drains_and_is_gone(registry: str) -> None:
    stop = Event()
    with working(stop, registry_url=registry):
        eventually(lambda: statuses(registry) == ["up"])
        stop.set()
        eventually(lambda: statuses(registry) == ["draining"])

    assert statuses(registry) == []


def test_it_is_registered_as_degraded_during_an_outage(registry: str) -> None:
    with working(registry_url=registry):
        conditions.met("loop", ShelfAway())

        eventually(lambda: statuses(registry) == ["degraded"])


def test_a_port_that_is_taken_costs_no_work(registry: str, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = ServiceSettings(_env_file=None, registry_url=registry, port=taken.getsockname()[1])
        with caplog.at_level(logging.WARNING), present("shelf_worker", settings, NEEDS, Event()):
            eventually(lambda: "nothing listens" in caplog.text)

    assert statuses(registry) == []


def test_an_outage_is_named_by_what_raises_it() -> None:
    found = Conditions()
    found.met("one", ShelfAway())
    found.met("another", KeyError())

    assert list(found.by_name(NEEDS)) == ["shelf"]


def test_an_outage_that_no_job_has_met_for_a_while_is_over() -> None:
    seconds = iter([100.0, 129.0, 131.0])
    found = Conditions(lambda: next(seconds))
    found.met("loop", ShelfAway())

    assert [list(found.by_name(NEEDS)) for _ in range(2)] == [["shelf"], []]


def test_health_is_json_in_the_form_of_services(worker: str) -> None:
    body = json.loads(plain_http.get(f"{worker}/health").content)

    assert list(body) == ["status", "service", "version", "checks"]
