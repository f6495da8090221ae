"""Requests that come again on a connection: heartbeats, and the requests of watchers."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from signal import SIGTERM
from typing import Any

import pytest
import server_processes
from fastapi import FastAPI
from starlette.datastructures import State
from starlette.types import Scope

from common.server.run import KEEP_ALIVE_SECONDS, Server, uvicorn_config
from common.telemetry import metrics
from registry_service import shortcut
from registry_service.app import create_app
from registry_service.models import NewInstance
from registry_service.protocol import RepeatProtocol
from registry_service.settings import RegistrySettings
from registry_service.store import RegistryStore
from tests import plain_http
from tests.polling import PATIENCE_SECONDS, eventually
from tests.serving import serving

Response = tuple[int, dict[str, str], dict[str, Any]]


class Connection:
    """A connection to a registry."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.config.port), PATIENCE_SECONDS)
        self._received = self._socket.makefile("rb")

    def close(self) -> None:
        self._received.close()
        self._socket.close()

    def send(self, data: bytes) -> Response:
        """Send these bytes; the next response."""
        self.write(data)
        return self.receive()

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Response:
        status = int(self._received.readline().split()[1])
        lines = iter(lambda: self._received.readline().decode().strip(), "")
        headers = dict(line.split(": ", 1) for line in lines)
        return status, headers, json.loads(self._received.read(int(headers["content-length"])))

    def is_at_end(self) -> bool:
        """Whether the registry closes the connection, rather than sends anything."""
        return self._received.read(1) == b""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A registry that listens."""
    with serving(server := _server()):
        yield server


def _server() -> Server:
    settings = RegistrySettings(_env_file=None, port=server_processes.free_port())
    return Server(uvicorn_config(create_app(settings), settings, RepeatProtocol))


@pytest.fixture
def store(server: Server) -> RegistryStore:
    store: RegistryStore = _state(server).store
    return store


def _state(server: Server) -> State:
    app = server.config.app
    assert isinstance(app, FastAPI)
    return app.state


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    with closing(Connection(server)) as connection:
        yield connection


@pytest.fixture
def send(connection: Connection) -> Callable[[bytes], Response]:
    """Send these bytes on one connection; the next response."""
    return connection.send


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


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that reach the middleware."""
    reached: list[str] = []
    is_of_watcher = shortcut._is_of_watcher

    def recorded(scope: Scope) -> bool:
        reached.append(scope["path"])
        return is_of_watcher(scope)

    monkeypatch.setattr(shortcut, "_is_of_watcher", recorded)
    return reached


def test_a_repeated_heartbeat_reaches_no_middleware(
    send: Callable[[bytes], Response], beat: bytes, reached: list[str]
) -> None:
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


def test_a_heartbeat_of_another_instance_is_read(send: Callable[[bytes], Response], beat: bytes) -> None:
    other = beat.replace(b" HTTP/1.1", b"x HTTP/1.1")

    assert [send(one)[0] for one in (beat, beat, other, beat)] == [200, 200, 404, 200]


def test_a_connection_on_which_requests_come_again_stays_open(
    server: Server, connection: Connection, beat: bytes
) -> None:
    connection.send(beat), connection.send(beat)
    [protocol] = [one for one in server.server_state.connections if getattr(one, "_last", None) == beat]
    server._loop.call_soon_threadsafe(protocol.timeout_keep_alive_handler)
    still = connection.send(beat)
    protocol._began -= KEEP_ALIVE_SECONDS
    server._loop.call_soon_threadsafe(protocol.timeout_keep_alive_handler)

    assert (still[0], connection.is_at_end()) == (200, True)


def _watch(store: RegistryStore, since: int, wait: float = 0) -> bytes:
    """The request of a watcher that has this version."""
    query = f"epoch={store.epoch}&version={since}&wait={wait}&changes=true"
    return f"GET /services?{query} HTTP/1.1\r\nHost: registry\r\n\r\n".encode()


def _wait_again(server: Server, connection: Connection) -> None:
    """Have a watcher ask and, with its next request, wait."""
    store, watchers = _state(server).store, _state(server).watchers
    connection.send(_watch(store, store.version()))
    connection.write(_watch(store, store.version(), wait=30))
    eventually(lambda: watchers._waiting)


def _change(server: Server) -> None:
    """Have another instance."""
    place = {"service_name": "likes", "host": "127.0.0.1", "port": 5300}
    url = f"http://127.0.0.1:{server.config.port}/register"
    assert plain_http.post(url, json=place).status_code == 201


def test_a_watcher_that_asks_with_another_version_reaches_no_middleware(
    send: Callable[[bytes], Response], beat: bytes, store: RegistryStore, reached: list[str]
) -> None:
    newest = store.version()
    versions = [newest - 1, newest, newest - 1]
    responses = [send(_watch(store, version)) for version in versions]

    assert len(reached) == 1
    assert [(status, list(headers)) for status, headers, _ in responses] == [(200, list(responses[0][1]))] * 3
    assert [news["since"] for *_, news in responses] == versions


def test_a_watcher_that_asks_again_learns_of_a_change(server: Server, connection: Connection) -> None:
    _wait_again(server, connection)
    _change(server)
    status, _, news = connection.receive()

    assert (status, [one["port"] for one in news["changed"]]) == (200, [5300])


def test_a_watcher_that_asks_again_in_vain_has_a_response_at_last(
    send: Callable[[bytes], Response], store: RegistryStore
) -> None:
    responses = [send(_watch(store, store.version(), wait=0.05)) for _ in range(3)]

    assert [(status, news["changed"]) for status, _, news in responses] == [(200, [])] * 3


def test_a_watcher_that_asks_again_for_nonsense_is_refused(
    send: Callable[[bytes], Response], store: RegistryStore
) -> None:
    good = _watch(store, store.version())
    bad = good.replace(b"wait=0", b"wait=x")

    assert [send(one)[0] for one in (good, bad, good, bad, bad)] == [200, 422, 200, 422, 422]


def test_what_follows_on_the_connection_of_a_watcher_has_its_response_after_the_watchers(
    server: Server, connection: Connection
) -> None:
    _wait_again(server, connection)
    connection.write(b"GET / HTTP/1.1\r\nHost: registry\r\n\r\n")
    _change(server)

    assert [next(iter(connection.receive()[2])) for _ in range(2)] == ["epoch", "name"]


def test_a_watcher_that_goes_away_waits_no_longer(server: Server) -> None:
    connection = Connection(server)
    _wait_again(server, connection)
    connection.close()

    eventually(lambda: not _state(server).watchers._waiting)


def test_a_watcher_that_asked_again_is_being_served(server: Server, connection: Connection) -> None:
    _wait_again(server, connection)
    url = f"http://127.0.0.1:{server.config.port}/metrics"

    eventually(lambda: "\nhttp_server_active_requests 2.0\n" in plain_http.get(url).text)


def test_a_registry_that_ends_lets_no_watcher_wait_that_asked_again() -> None:
    server = _server()
    with serving(server), closing(Connection(server)) as connection:
        _wait_again(server, connection)
        server.handle_exit(SIGTERM, None)
        status, headers, problem = connection.receive()

        assert (status, headers["connection"], problem["code"]) == (503, "close", "leaving")
        assert connection.is_at_end()
