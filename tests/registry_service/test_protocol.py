"""Heartbeats that come byte for byte again on a connection."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import server_processes
import uvicorn
from fastapi import FastAPI
from starlette.types import Scope

from common.server.run import uvicorn_config
from common.telemetry import metrics
from registry_service import shortcut
from registry_service.app import create_app
from registry_service.models import NewInstance
from registry_service.protocol import RepeatProtocol
from registry_service.settings import RegistrySettings
from registry_service.store import RegistryStore
from tests.polling import PATIENCE_SECONDS
from tests.serving import serving

Response = tuple[int, dict[str, str], dict[str, object]]


@pytest.fixture(scope="module")
def registry() -> Iterator[tuple[FastAPI, int]]:
    """A registry, and its port."""
    settings = RegistrySettings(_env_file=None, port=server_processes.free_port())
    app = create_app(settings)
    with serving(uvicorn.Server(uvicorn_config(app, settings, RepeatProtocol))):
        yield app, settings.port


@pytest.fixture
def store(registry: tuple[FastAPI, int]) -> RegistryStore:
    store: RegistryStore = registry[0].state.store
    return store


@pytest.fixture
def send(registry: tuple[FastAPI, int]) -> Iterator[Callable[[bytes], Response]]:
    """Send these bytes on one connection; the next response."""
    with closing(socket.create_connection(("127.0.0.1", registry[1]), PATIENCE_SECONDS)) as connection:
        received = connection.makefile("rb")

        def send(data: bytes) -> Response:
            connection.sendall(data)
            status = int(received.readline().split()[1])
            lines = iter(lambda: received.readline().decode().strip(), "")
            headers = dict(line.split(": ", 1) for line in lines)
            return status, headers, json.loads(received.read(int(headers["content-length"])))

        yield send


@pytest.fixture
def beat(store: RegistryStore) -> bytes:
    """A heartbeat of a registered instance."""
    new = NewInstance(service_name="users", host="127.0.0.1", port=5100)
    return _heartbeat(store.register(new).instance_id, b'{"status":"up"}')


def _heartbeat(instance_id: str, body: bytes) -> bytes:
    head = [f"POST /heartbeat/{instance_id} HTTP/1.1".encode(), b"Host: registry"]
    head += [b"Content-Type: application/json", b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", body])


def test_a_repeated_heartbeat_has_the_response_of_the_first(
    send: Callable[[bytes], Response], beat: bytes
) -> None:
    first, second, third = send(beat), send(beat), send(beat)

    assert [list(one[1]) for one in (second, third)] == [list(first[1])] * 2
    for status, headers, instance in (second, third):
        assert (status, headers["content-type"]) == (200, "application/json")
        assert instance | {"last_heartbeat": ""} == first[2] | {"last_heartbeat": ""}
    assert len({one[1]["x-request-id"] for one in (first, second, third)}) == 3


def test_a_repeated_heartbeat_reaches_no_middleware(
    send: Callable[[bytes], Response], beat: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[str] = []
    is_of_watcher = shortcut._is_of_watcher

    def counted(scope: Scope) -> bool:
        reached.append(scope["path"])
        return is_of_watcher(scope)

    monkeypatch.setattr(shortcut, "_is_of_watcher", counted)
    for _ in range(3):
        send(beat)

    assert len(reached) == 1


def test_a_repeated_heartbeat_renews_the_lease(
    send: Callable[[bytes], Response], beat: bytes, store: RegistryStore
) -> None:
    heard = [send(beat)[2]["last_heartbeat"] for _ in range(3)]

    assert heard == sorted(set(heard))
    assert [one.last_heartbeat.isoformat() for one in store.instances("users")] == [
        str(heard[-1]).replace("Z", "+00:00")
    ]


def test_a_repeated_heartbeat_keeps_its_request_id(send: Callable[[bytes], Response], beat: bytes) -> None:
    named = beat.replace(b"\r\n", b"\r\nX-Request-ID: mine\r\n", 1)

    assert [send(named)[1]["x-request-id"] for _ in range(3)] == ["mine"] * 3


def test_once_an_instance_is_gone_its_repeated_heartbeat_is_404(
    send: Callable[[bytes], Response], beat: bytes, store: RegistryStore
) -> None:
    instance_id = str(send(beat)[2]["instance_id"])
    send(beat)
    store.deregister(instance_id)

    assert [send(beat)[0] for _ in range(2)] == [404, 404]


def test_another_heartbeat_between_two_is_read(send: Callable[[bytes], Response], beat: bytes) -> None:
    other = beat.replace(b'"up"', b'"degraded"').replace(b"Length: 15", b"Length: 21")

    assert [send(one)[2]["status"] for one in (beat, other, beat, other, other)] == [
        "up",
        "degraded",
        "up",
        "degraded",
        "degraded",
    ]


def test_two_heartbeats_in_one_packet_have_two_responses(
    send: Callable[[bytes], Response], beat: bytes
) -> None:
    assert [send(data)[0] for data in (beat, beat + beat, b"", beat + beat, b"")] == [200] * 5


def test_repeated_heartbeats_are_measured_as_requests(
    send: Callable[[bytes], Response], beat: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[tuple[object, ...]] = []
    monkeypatch.setattr(metrics.server_requests, "record", lambda _, *labels: recorded.append(labels))
    for _ in range(3):
        send(beat)

    assert recorded[-2:] == [("POST", "/heartbeat/{instance_id}", 200)] * 2
