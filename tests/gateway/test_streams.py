"""Streams of events through the gateway: passed on at once, ended in time, no burden to others."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from common.gateway import forwarded_request, proxy, streams
from common.server.run import uvicorn_config
from tests.event_client import EventClient
from tests.gateway.conftest import Answer
from tests.polling import PATIENCE_SECONDS, eventually
from tests.serving import serving

Open = Callable[..., EventClient]
EVENT = b'id: 1\nevent: delete\ndata: {"id": "%d"}\n\n'


class EventSource:
    """What an upstream does with a stream: it sends what it is told to, and sees when the gateway leaves."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.is_left = threading.Event()
        self.end = threading.Event()

    def __call__(self, answer: Answer) -> None:
        if not answer.path.startswith("/stream"):
            answer.reply()
            return
        answer.send_response(200)
        answer.send_header("Content-Type", "text/event-stream; charset=utf-8")
        answer.send_header("Transfer-Encoding", "chunked")
        answer.end_headers()
        self.answers.append(answer)
        with suppress(ConnectionError):
            answer.connection.recv(1)
        self.is_left.set()
        answer.close_connection = True

    def send(self, text: bytes) -> None:
        for answer in self.answers:
            answer.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))


@pytest.fixture
def source(timelines) -> EventSource:
    timelines.behaviour = source = EventSource()
    return source


@pytest.fixture
def port(app: FastAPI) -> Iterator[int]:
    config = uvicorn_config(app, app.state.settings)
    config.port = 0
    server = uvicorn.Server(config)
    with serving(server):
        yield server.servers[0].sockets[0].getsockname()[1]


@pytest.fixture
def listen(port: int, source: EventSource) -> Iterator[Open]:
    """Open a stream, and wait until the upstream has it if it is to get there."""
    with ExitStack() as stack:

        def listen(**query: str) -> EventClient:
            return stack.enter_context(EventClient(port, **query))

        yield listen


def test_an_event_is_passed_on_at_once(listen: Open, source: EventSource) -> None:
    stream = listen()
    for number in range(3):
        source.send(EVENT % number)
        assert stream.waits_for(number + 1)[number].data == {"id": str(number)}


def test_the_last_event_id_is_passed_on(listen: Open, timelines) -> None:
    listen(last_id="1-2-3-4-5")

    assert timelines.requests[0].headers["Last-Event-ID"] == "1-2-3-4-5"


def test_an_instance_is_left_when_the_client_leaves(port: int, source: EventSource) -> None:
    with EventClient(port):
        pass

    assert source.is_left.wait(PATIENCE_SECONDS)


def test_streams_take_no_place_of_other_requests(
    listen: Open, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "MAX_CONCURRENT_REQUESTS", 1)
    for _ in range(3):
        assert listen().status == 200

    assert httpx2.get(f"http://127.0.0.1:{port}/posts", verify=False).status_code == 200


def test_a_stream_outlasts_the_limits_of_a_request(
    listen: Open, source: EventSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.gateway.watchdog.WATCH_AFTER_SECONDS", 0.01)
    monkeypatch.setattr("common.gateway.watchdog.REQUEST_TIMEOUT_SECONDS", 0.1)
    stream = listen()
    deadline = threading.Event()
    threading.Timer(0.5, deadline.set).start()
    assert deadline.wait(PATIENCE_SECONDS)
    source.send(EVENT % 1)

    stream.waits_for(1)


def test_a_stream_of_an_instance_that_hangs_ends(
    listen: Open, source: EventSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarded_request, "STREAM_READ_SECONDS", 0.2)
    stream = listen()

    eventually(lambda: stream.is_over)
    assert stream.is_complete


def test_a_stream_of_an_instance_that_is_killed_ends(listen: Open, source: EventSource) -> None:
    stream = listen()
    source.send(EVENT % 1)
    stream.waits_for(1)
    source.answers[0].reset()

    eventually(lambda: stream.is_over)
    assert stream.is_complete


def test_streams_end_when_the_gateway_is_about_to_stop(
    app: FastAPI, listen: Open, source: EventSource
) -> None:
    stream = listen()
    app.state.on_shutdown()

    eventually(lambda: stream.is_over)
    assert stream.is_complete
    assert listen().status == 503


def test_one_address_may_have_so_many_streams(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS_OF_AN_ADDRESS", 2)
    opened = [listen() for _ in range(3)]

    assert [stream.status for stream in opened] == [200, 200, 429]
    assert opened[2].response.headers["Retry-After"] == "2"


def test_one_gateway_may_have_so_many_streams(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)

    assert [listen().status for _ in range(3)] == [200, 200, 503]


def test_a_client_that_does_not_read_is_cut_off(
    port: int, source: EventSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.server.protocol.WRITE_TIMEOUT_SECONDS", 0.1)

    def flood() -> None:
        with suppress(OSError, ValueError):
            while True:
                source.send(b":" * 2**20)

    with EventClient(port, is_reading=False):
        flooding = threading.Thread(target=flood)
        flooding.start()

        assert source.is_left.wait(PATIENCE_SECONDS)
        flooding.join()
