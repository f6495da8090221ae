"""What reaches the gateway over a socket, well-formed or not, and what of it reaches a service."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import server_processes
import uvicorn
from fastapi import FastAPI

from common.gateway import watchdog
from common.server import protocol
from common.server.protocol import BoundedProtocol
from common.server.run import uvicorn_config
from gateway import GatewaySettings
from tests.gateway.conftest import Answer, Upstream
from tests.polling import PATIENCE_SECONDS, eventually
from tests.serving import serving

HOST = b"Host: gateway\r\n"
CLOSE = b"Connection: close\r\n"
END = b"\r\n"
GET = b"GET /posts HTTP/1.1\r\n"
POST = b"POST /posts HTTP/1.1\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

Connect = Callable[[], socket.socket]


@pytest.fixture
def port(app: FastAPI) -> Iterator[int]:
    """Where the gateway listens, as it does when it is started by people."""
    settings = GatewaySettings(_env_file=None, registry_url=None, port=server_processes.free_port())
    with serving(uvicorn.Server(uvicorn_config(app, settings))):
        yield settings.port


@pytest.fixture
def connect(port: int) -> Iterator[Connect]:
    opened: list[socket.socket] = []

    def connect() -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def _rest(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass  # it had not read all that was sent to it
    return received


def _is_refused(connection: socket.socket, sent: bytes) -> bool:
    try:
        connection.sendall(sent)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


REFUSED = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "two lengths": (POST + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "a list of lengths": (POST + HOST + b"Content-Length: 2, 3\r\n\r\n{}", 400),
    "a signed length": (POST + HOST + b"Content-Length: +2\r\n\r\n{}", 400),
    "a negative length": (POST + HOST + b"Content-Length: -2\r\n\r\n{}", 400),
    "a hexadecimal length": (POST + HOST + b"Content-Length: 0x2\r\n\r\n{}", 400),
    "a length and chunks": (POST + HOST + b"Content-Length: 2\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400),
    "chunks and a length": (POST + HOST + CHUNKED + b"Content-Length: 2\r\n\r\n0\r\n\r\n", 400),
    "another coding": (POST + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, but not last": (POST + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "a space before the colon": (POST + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "a chunk of no size": (POST + HOST + CHUNKED + b"\r\nzz\r\n{}\r\n0\r\n\r\n", 400),
    "a chunk that is too long": (POST + HOST + CHUNKED + b"\r\n2\r\n{}{}\r\n0\r\n\r\n", 400),
    "a folded header": (GET + HOST + b"X-A: 1\r\n  2\r\n\r\n", 400),
    "NUL in a header": (GET + HOST + b"X-A: \x00\r\n\r\n", 400),
    "CR in a header": (GET + HOST + b"X-A: 1\r2\r\n\r\n", 400),
    "a space in the target": (b"GET /posts /x HTTP/1.1\r\n" + HOST + END, 400),
    "NUL in the target": (b"GET /posts\x00 HTTP/1.1\r\n" + HOST + END, 400),
    "no host": (GET + END, 400),
    "an empty host, in the old version": (b"GET /posts HTTP/1.0\r\nHost:\r\n\r\n", 400),
    "two hosts, in the old version": (b"GET /posts HTTP/1.0\r\n" + HOST + HOST + END, 400),
    "two hosts": (GET + HOST + HOST + END, 400),
    "an empty host": (GET + b"Host:\r\n\r\n", 400),
    "a user in the host": (GET + b"Host: user@gateway\r\n\r\n", 400),
    "a path in the host": (GET + b"Host: gateway/posts\r\n\r\n", 400),
    "another host in the target": (b"GET http://evil/posts HTTP/1.1\r\n" + HOST + END, 400),
    "another version": (b"GET /posts HTTP/3.7\r\n" + HOST + END, 400),
    "TRACE": (b"TRACE /posts HTTP/1.1\r\n" + HOST + END, 405),
    "CONNECT": (b"CONNECT gateway:80 HTTP/1.1\r\n" + HOST + END, 405),
    "an upgrade with a body": (
        POST + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}", 400,
    ),
    "a dot segment": (b"GET /posts/.. HTTP/1.1\r\n" + HOST + END, 400),
    "an encoded dot segment": (b"GET /posts/%2e%2E HTTP/1.1\r\n" + HOST + END, 400),
    "a dot segment behind an encoded slash": (b"GET /posts/a%2f.. HTTP/1.1\r\n" + HOST + END, 400),
    "a long URL": (b"GET /posts?" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + END, 414),
    "a URL without an end": (b"GET /posts?" + b"a" * 60_000, 414),
    "a large header": (GET + HOST + b"X-A: " + b"a" * 33_000 + b"\r\n\r\n", 431),
    "a header without an end": (GET + HOST + b"X-A: " + b"a" * 60_000, 431),
    "many headers": (GET + HOST + b"X-A: 1\r\n" * 101 + END, 431),
    "a large body": (POST + HOST + b"Content-Length: 1048577\r\n\r\n", 413),
}  # fmt: skip


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
def test_what_could_be_read_in_two_ways_or_is_too_large_reaches_no_service(
    connect: Connect, timelines: Upstream, request_bytes: bytes, status: int
) -> None:
    connection = connect()
    connection.sendall(request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    answer = _rest(connection)

    assert _status(answer) == status
    assert b"application/problem+json" in answer
    assert timelines.requests == []


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS"])
@pytest.mark.parametrize("path", [b"/health", b"/livez", b"/"])
@pytest.mark.parametrize(
    "version", [b"1.0\r\n", b"1.0\r\nHost: gateway\r\n", b"1.1\r\nHost: gateway\r\n" + CLOSE]
)
def test_a_balancers_check_is_200(
    connect: Connect, timelines: Upstream, method: bytes, path: bytes, version: bytes
) -> None:
    connection = connect()
    connection.sendall(method + b" " + path + b" HTTP/" + version + END)
    head, _, body = _rest(connection).partition(END + END)

    assert (_status(head), bool(body)) == (200, method != b"HEAD")


def test_the_old_version_needs_no_host(connect: Connect, timelines: Upstream) -> None:
    connection = connect()
    connection.sendall(b"POST /posts HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")

    assert _status(_rest(connection)) == 200
    assert (timelines.requests[0].body, timelines.requests[0].headers["X-Forwarded-Host"]) == (b"{}", None)


def test_options_is_for_checks_only(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"OPTIONS /docs HTTP/1.0\r\n\r\n")

    assert _status(_rest(connection)) == 405


def test_a_refusal_bears_the_request_id(connect: Connect) -> None:
    connection = connect()
    connection.sendall(GET + b"X-Request-ID: mine\r\n" + CLOSE + END)
    head, _, body = _rest(connection).partition(b"\r\n\r\n")

    assert b"x-request-id: mine" in head.splitlines()
    assert json.loads(body)["request_id"] == "mine"


def test_a_refused_method_is_told_the_others(connect: Connect) -> None:
    connection = connect()
    connection.sendall(b"TRACE /posts HTTP/1.1\r\n" + HOST + CLOSE + END)

    assert b"allow: DELETE, GET, HEAD, PATCH, POST" in _rest(connection).splitlines()


def test_a_large_body_in_chunks_is_refused_while_it_is_read(connect: Connect, timelines: Upstream) -> None:
    connection = connect()
    connection.sendall(POST + HOST + CHUNKED + CLOSE + END)
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    for _ in range(17):
        _is_refused(connection, chunk)

    assert _status(_rest(connection)) == 413


def test_the_target_may_be_absolute(connect: Connect, timelines: Upstream) -> None:
    connection = connect()
    connection.sendall(b"GET http://gateway/posts?a=%2f HTTP/1.1\r\n" + HOST + CLOSE + END)

    assert _status(_rest(connection)) == 200
    assert [one.path for one in timelines.requests] == ["/posts?a=%2f"]


def test_an_answer_that_breaks_off_breaks_off_here_too(
    connect: Connect, timelines: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off(answer: Answer) -> None:
        answer.send_response(200)
        answer.send_header("Content-Length", "100")
        answer.end_headers()
        answer.wfile.write(b"some")
        answer.wfile.flush()
        answer.close_connection = True

    timelines.behaviour = break_off
    connection = connect()
    connection.sendall(GET + HOST + END)
    head, _, body = _rest(connection).partition(b"\r\n\r\n")

    assert b"content-length: 100" in head
    assert body == b"some"
    assert not any(record.exc_info for record in caplog.records)


def test_the_head_alone_is_that_of_the_whole_answer(connect: Connect, timelines: Upstream) -> None:
    timelines.behaviour = lambda answer: answer.reply(body=b"all of it")
    connection = connect()
    connection.sendall(b"HEAD /posts HTTP/1.1\r\n" + HOST + CLOSE + END)
    head, _, body = _rest(connection).partition(b"\r\n\r\n")

    assert b"content-length: 9" in head
    assert body == b""
    assert [one.command for one in timelines.requests] == ["HEAD"]


def test_pipelined_requests_are_answered_one_after_the_other(connect: Connect, timelines: Upstream) -> None:
    timelines.behaviour = lambda answer: answer.reply(body=answer.path.encode())
    connection = connect()
    connection.sendall(GET + HOST + END + b"GET /posts/alice HTTP/1.1\r\n" + HOST + CLOSE + END)
    first, second = _rest(connection).split(b"HTTP/1.1 200 OK")[1:]

    assert (first.endswith(b"/posts"), second.endswith(b"/posts/alice")) == (True, True)


def test_what_follows_a_request_is_no_part_of_its_answer(connect: Connect, timelines: Upstream) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait(answer: Answer) -> None:
        asked.set()
        go_on.wait()
        answer.reply()

    timelines.behaviour = wait
    connection = connect()
    connection.sendall(GET + HOST + END)
    asked.wait()
    connection.sendall(b"no HTTP\r\n\r\n")
    answer = _rest(connection)
    go_on.set()

    assert answer == b""


@pytest.mark.parametrize("header", ["X_User_Id: 1", "X-User-Id: 1", "Forwarded: for=1.2.3.4", "TE: trailers"])
def test_what_only_this_side_may_say_is_dropped(connect: Connect, timelines: Upstream, header: str) -> None:
    connection = connect()
    connection.sendall(GET + HOST + CLOSE + header.encode() + END + END)
    _rest(connection)

    assert timelines.requests[0].headers[header.partition(":")[0]] is None


def test_a_small_body_in_chunks_is_sent_on_whole(connect: Connect, timelines: Upstream) -> None:
    connection = connect()
    connection.sendall(POST + HOST + CLOSE + CHUNKED + b"\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
    _rest(connection)

    [request] = timelines.requests
    assert (request.body, request.headers["Content-Length"]) == (b"{}", "2")


def test_a_trailer_is_no_header(connect: Connect, timelines: Upstream) -> None:
    connection = connect()
    connection.sendall(POST + HOST + CLOSE + CHUNKED + END + b"1\r\n{\r\n")
    connection.sendall(b"1\r\n}\r\n0\r\nAuthorization: Bearer late\r\nX-Late: 1\r\n\r\n")
    _rest(connection)

    [request] = timelines.requests
    assert (request.headers["Authorization"], request.headers["X-Late"]) == (None, None)


@pytest.mark.parametrize("after", [b"0\r\nX-T: ", b"1;extension="])
def test_what_brings_no_body_is_bounded_behind_the_head_too(
    connect: Connect, timelines: Upstream, after: bytes
) -> None:
    connection = connect()
    connection.sendall(POST + HOST + CHUNKED + END + after)

    assert eventually(lambda: _is_refused(connection, b"a" * 10_000))
    assert timelines.requests == []


def test_an_end_of_line_keeps_no_connection_open(
    connect: Connect, timelines: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 2)
    connection = connect()
    connection.sendall(GET + HOST + END)
    answer = b""
    while not answer.endswith(b"{}"):
        answer += connection.recv(10_000)
    connection.sendall(b"\r\n")

    assert _status(answer) == 200
    assert _rest(connection) == b""


@pytest.mark.parametrize(
    ("target", "host"), [("http://[::1]:8080/posts", "[::1]:8080"), ("http://X:80/posts", "x")]
)
def test_a_host_is_the_same_however_it_is_written(
    connect: Connect, timelines: Upstream, target: str, host: str
) -> None:
    connection = connect()
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n".encode() + CLOSE + END)

    assert _status(_rest(connection)) == 200


def test_a_headers_bytes_pass_unchanged(connect: Connect, timelines: Upstream) -> None:
    connection = connect()
    connection.sendall(GET + HOST + CLOSE + "X-Name: é".encode() + END + END)
    _rest(connection)

    assert timelines.requests[0].headers["X-Name"].encode("latin-1") == "é".encode()


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("HEADER_TIMEOUT_SECONDS", b""),
        ("HEADER_TIMEOUT_SECONDS", GET + HOST),
        ("BODY_TIMEOUT_SECONDS", POST + HOST + b"Content-Length: 9\r\n\r\n{"),
        ("BODY_TIMEOUT_SECONDS", POST + HOST + CHUNKED + b"\r\n1\r\n"),
    ],
)
def test_a_client_that_takes_too_long_to_ask_is_cut_off(
    connect: Connect, timelines: Upstream, monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, limit, 0.1)
    connection = connect()
    connection.sendall(sent)

    assert _rest(connection) == b""
    assert timelines.requests == []


def test_a_large_body_that_takes_too_long_is_408(
    connect: Connect, timelines: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "WATCH_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "REQUEST_TIMEOUT_SECONDS", 0.3)
    connection = connect()
    connection.sendall(POST + HOST + CHUNKED + END + b"11000\r\n" + b"a" * 0x11000 + b"\r\n")

    assert _status(_rest(connection)) == 408


def test_a_client_that_drips_headers_is_cut_off_all_the_same(
    connect: Connect, timelines: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", 0.3)
    connection = connect()
    connection.sendall(GET)

    assert eventually(lambda: _is_refused(connection, b"X-A: 1\r\n"))


def test_a_client_that_does_not_read_the_answer_is_cut_off(
    connect: Connect, timelines: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "WRITE_TIMEOUT_SECONDS", 0.1)
    body = b"a" * 20_000_000
    is_sent = threading.Event()

    def reply(answer: Answer) -> None:
        with contextlib.suppress(OSError):
            answer.reply(body=body)
        is_sent.set()

    timelines.behaviour = reply
    connection = connect()
    connection.sendall(GET + HOST + END)
    assert is_sent.wait(PATIENCE_SECONDS)

    assert len(_rest(connection)) < len(body)


@pytest.fixture
def at_most_two_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "max_connections", 2)


def test_too_many_connections_are_refused(
    at_most_two_connections: None, connect: Connect, timelines: Upstream
) -> None:
    kept = [connect(), connect()]
    for one in kept:
        one.sendall(GET + HOST + END)
        assert one.recv(1000)
    refused = connect()

    assert _status(_rest(refused)) == 503


def test_slow_clients_keep_no_other_waiting(
    connect: Connect, timelines: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    slow = [connect() for _ in range(200)]
    for one in slow:
        one.sendall(GET)
    quick = connect()
    quick.sendall(GET + HOST + CLOSE + END)

    assert _status(_rest(quick)) == 200
