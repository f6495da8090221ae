"""Calling another service, over real connections to instances that do all that instances do."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
import server_processes

from common.discovery import client as module
from common.discovery.client import ServiceClient
from common.errors import Unavailable
from common.server.app import THREADS
from common.telemetry import context
from tests.instances import directory_of, instance
from tests.polling import PATIENCE_SECONDS, eventually
from tests.scrape import growth

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
KEPT_ALIVE = OK.replace(b"Connection: close\r\n", b"")


class Served:
    """One instance: answers every request with the same bytes, then closes or resets; or never answers.

    If it keeps the connection alive, then only until something is asked on it.
    """

    def __init__(self, response: bytes | None, reset: bool = False) -> None:
        self.requests: list[bytes] = []
        self._answer = response
        self._reset = reset
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with ExitStack() as held:
            while True:
                connection, _ = self._socket.accept()
                held.enter_context(connection)
                request = connection.recv(65536)
                if request == b"stop":
                    break
                self.requests.append(request)
                if self._answer is not None:
                    with suppress(OSError), connection:  # the client may have hung up
                        self._reply(connection, self._answer)

    def _reply(self, connection: socket.socket, response: bytes) -> None:
        connection.sendall(response)
        if response == KEPT_ALIVE:
            self.requests.append(connection.recv(65536))
        if self._reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def stop(self) -> None:
        """Safe to call twice."""
        if self._thread.is_alive():
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(b"stop")
                self._thread.join()
            self._socket.close()


def with_headers(*headers: bytes, status: bytes = b"200 OK") -> bytes:
    return b"\r\n".join(
        [b"HTTP/1.1 " + status, b"Connection: close", b"Content-Length: 5", *headers, b"", b"hello"]
    )


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:

        def start(response: bytes | None = OK, reset: bool = False) -> Served:
            served = Served(response, reset)
            stack.callback(served.stop)
            return served

        yield start


@pytest.fixture
def ask(tokens) -> Iterator[Callable[..., ServiceClient]]:
    """Makes clients that know the instances on these ports."""
    with ExitStack() as stack:

        def make(*ports: int) -> ServiceClient:
            directory = directory_of(*(instance(port, "things") for port in ports))
            client = ServiceClient("things", directory, tokens, "askers")
            stack.callback(client.close)
            return client

        yield make


def refused() -> int:
    return server_processes.free_port()


def test_the_answer_comes_back(serve, ask):
    response = ask(serve().port).get("/things/1")

    assert (response.status_code, response.text) == (200, "hello")


def test_the_request_names_its_caller_and_nothing_else(serve, ask):
    served = serve()
    context.start("request-1")
    ask(served.port).get("/things/1", {"limit": "2"}, {"If-None-Match": '"1"'})
    line, *headers = served.requests[0].decode().strip().split("\r\n")
    said = dict(header.lower().split(": ", 1) for header in headers)

    assert line == "GET /things/1?limit=2 HTTP/1.1"
    assert set(said) == {"host", "authorization", "x-request-id", "traceparent", "if-none-match"}
    assert (said["x-request-id"], said["traceparent"]) == ("request-1", context.traceparent.get())


def test_the_token_is_a_services(serve, ask, tokens):
    served = serve()
    ask(served.port).get("/")
    (token,) = [
        line.removeprefix("Authorization: Bearer ")
        for line in served.requests[0].decode().split("\r\n")
        if line.startswith("Authorization")
    ]

    assert tokens.subject(token) == "service:askers"


def test_no_cookie_is_kept(serve, ask):
    served = serve(with_headers(b"Set-Cookie: sid=alice; Path=/"))
    client = ask(served.port)

    for _ in range(2):
        client.get("/")

    assert not any(b"cookie" in request.lower() for request in served.requests)


def test_no_proxy_of_the_environment_is_used(serve, ask, monkeypatch):
    proxy = serve()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")

    ask(serve().port).get("/")

    assert proxy.requests == []


def test_no_netrc_is_read(serve, ask, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    served = serve()

    ask(served.port).get("/")

    assert b"basic" not in served.requests[0].lower()


def test_a_redirection_is_not_followed(serve, ask):
    elsewhere = serve()
    location = b"Location: http://127.0.0.1:%d/" % elsewhere.port

    response = ask(serve(with_headers(location, status=b"302 Found")).port).get("/")

    assert (response.status_code, elsewhere.requests) == (302, [])


@pytest.mark.parametrize("status", [b"304 Not Modified", b"404 Not Found", b"401 Unauthorized", b"422 No"])
def test_what_an_instance_decides_is_the_answer(serve, ask, status):
    served = [serve(with_headers(status=status)) for _ in range(2)]

    response = ask(*(one.port for one in served)).get("/")

    assert response.status_code == int(status[:3])
    assert sum(len(one.requests) for one in served) == 1


NOT_FOUND = b'{"title":"-","status":404,"detail":"-","code":"not_found","request_id":"-"}'
STRANGERS = {
    "another service": b"HTTP/1.1 404 No\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(NOT_FOUND), NOT_FOUND),
    "another framework": with_headers(b"Content-Type: application/json", status=b"404 No"),
    "a page": with_headers(b"Content-Type: text/html"),
    "a redirect": with_headers(b"Content-Type: text/html", b"Location: /", status=b"301 Moved"),
}


@pytest.mark.parametrize("response", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_stranger_at_an_instances_address_is_no_answer(serve, ask, response):
    with pytest.raises(Unavailable):
        ask(serve(response).port).get("/")


@pytest.mark.usefixtures("ejected_for_good")
@pytest.mark.parametrize("name", sorted(STRANGERS.keys() - {"another service"}))
def test_a_stranger_at_an_instances_address_is_asked_once(serve, ask, name):
    stranger = serve(STRANGERS[name])
    client = ask(stranger.port, serve().port)
    until_asked(client, stranger)

    assert {client.get("/").text for _ in range(20)} == {"hello"}
    assert len(stranger.requests) == 1


@pytest.mark.usefixtures("ejected_for_good")
def test_an_instance_that_lacks_a_route_is_asked_for_others(serve, ask):
    older = serve(STRANGERS["another service"])
    client = ask(older.port, serve().port)
    until_asked(client, older)

    assert {client.get("/").text for _ in range(20)} == {"hello"}
    assert len(older.requests) > 1


def test_a_new_path_may_be_missing(serve, ask):
    older = serve(STRANGERS["another service"])

    assert ask(older.port).get("/new", is_new=True).status_code == 404


def until_asked(client: ServiceClient, first: Served) -> None:
    """Which of two goes first is chance: ask until it was this one."""
    while not first.requests:
        assert client.get("/").text == "hello"


@pytest.mark.parametrize(
    "status", [b"429 Slow Down", b"500 No", b"501 No", b"502 No", b"503 No", b"504 No", b"507 No"]
)
def test_what_is_only_of_the_moment_is_asked_elsewhere(serve, ask, status):
    unwell = serve(with_headers(status=status))

    until_asked(ask(unwell.port, serve().port), unwell)

    assert len(unwell.requests) == 1


@pytest.mark.parametrize("status", [b"429 Slow Down", b"500 No", b"503 No", b"507 No"])
def test_without_an_answer_anywhere_it_is_unavailable(serve, ask, status):
    with pytest.raises(Unavailable) as caught:
        ask(serve(with_headers(status=status)).port).get("/")

    assert caught.value.code == "things_unavailable"


def test_without_an_instance_it_is_unavailable(ask):
    with pytest.raises(Unavailable):
        ask().get("/")


def test_where_nobody_listens_it_is_unavailable(ask):
    with pytest.raises(Unavailable):
        ask(refused()).get("/")


def test_a_refusing_instance_does_not_matter_beside_another(serve, ask):
    client = ask(refused(), serve().port)

    assert {client.get("/").text for _ in range(10)} == {"hello"}


UPSTREAM_FAILURES = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello",
    "junk": b"junk\r\n\r\n",
    "not gzip": with_headers(b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("response", UPSTREAM_FAILURES.values(), ids=UPSTREAM_FAILURES.keys())
def test_an_answer_that_breaks_off_is_asked_elsewhere(serve, ask, response, reset):
    broken = serve(response, reset)

    until_asked(ask(broken.port, serve().port), broken)

    assert len(broken.requests) == 1


@pytest.mark.parametrize("response", UPSTREAM_FAILURES.values(), ids=UPSTREAM_FAILURES.keys())
def test_an_answer_that_breaks_off_everywhere_is_unavailable(serve, ask, response):
    with pytest.raises(Unavailable):
        ask(serve(response).port).get("/")


def test_a_broken_answer_leaves_no_connection_taken(serve, ask, monkeypatch):
    monkeypatch.setattr(module, "POOL", module.httpx.Limits(max_connections=1))
    broken = serve(UPSTREAM_FAILURES["not gzip"])
    client = ask(broken.port)

    for _ in range(3):
        with pytest.raises(Unavailable):
            client.get("/")

    assert len(broken.requests) == 3


def test_a_connection_that_was_closed_while_idle_costs_no_answer(serve, ask):
    client = ask(serve(KEPT_ALIVE).port)

    assert [client.get("/").text for _ in range(3)] == ["hello"] * 3


def test_a_call_that_is_sent_again_to_the_same_instance_counts_as_a_retry(serve, ask):
    client = ask(serve(KEPT_ALIVE).port)

    with growth("microblog_retries_total", peer_service="things") as retries:
        for _ in range(3):
            client.get("/")

        assert retries() == 2


def test_another_instance_answers_for_one_that_hangs(serve, ask, monkeypatch):
    monkeypatch.setattr(module, "DEADLINE_SECONDS", PATIENCE_SECONDS)
    hung = serve(None)

    until_asked(ask(hung.port, serve().port), hung)

    assert len(hung.requests) == 1


@pytest.fixture
def by_name(tokens) -> Iterator[Callable[[int], ServiceClient]]:
    """Makes a client that knows an instance on this port by a name."""
    with ExitStack() as stack:

        def make(port: int) -> ServiceClient:
            directory = directory_of(instance(port, "things", host="things.test"))
            client = ServiceClient("things", directory, tokens, "askers")
            stack.callback(client.close)
            return client

        yield make


def test_an_address_that_refuses_does_not_matter_beside_another(serve, by_name, addresses):
    addresses["things.test"] = ["::1", "127.0.0.2", "127.0.0.1"]

    assert by_name(serve().port).get("/").text == "hello"


def test_a_name_that_does_not_resolve_is_unavailable(by_name, addresses):
    addresses["things.test"] = []

    with pytest.raises(Unavailable):
        by_name(1).get("/")


def test_a_name_that_leads_elsewhere_is_followed(serve, by_name, addresses):
    addresses["things.test"] = ["127.0.0.2"]
    client = by_name(serve().port)
    with pytest.raises(Unavailable):
        client.get("/")
    addresses["things.test"] = ["127.0.0.1"]

    assert client.get("/").text == "hello"


def test_many_that_hang_are_not_all_waited_for(serve, ask, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", module.TIMEOUT | {"read": 0.15})
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.2)
    hung = [serve(None) for _ in range(3)]

    with pytest.raises(Unavailable):
        ask(*(one.port for one in hung)).get("/")

    assert sum(len(one.requests) for one in hung) < 3


@pytest.fixture
def no_timeouts(monkeypatch):
    """No single step of a call ends by itself."""
    monkeypatch.setattr(module, "TIMEOUT", dict.fromkeys(module.TIMEOUT, PATIENCE_SECONDS))


def test_the_deadline_holds_for_one_that_hangs_too(serve, ask, no_timeouts, monkeypatch):
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.2)
    hung = serve(None)
    with pytest.raises(Unavailable):
        ask(hung.port).get("/")


@pytest.fixture
def dripping() -> Iterator[int]:
    """The port of an instance that answers a byte at a time, and never to the end."""

    def drip() -> None:
        connection, _ = listener.accept()
        with suppress(OSError), connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
            while not gone.wait(0.01):
                connection.sendall(b"x")

    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip)
        thread.start()
        yield listener.getsockname()[1]
        gone.set()
        thread.join()


def test_an_answer_that_drips_is_not_waited_for(dripping, ask, monkeypatch):
    monkeypatch.setattr(module, "DEADLINE_SECONDS", 0.2)
    with pytest.raises(Unavailable):
        ask(dripping).get("/")


def test_calls_that_hang_take_half_of_a_services_threads_and_no_more(serve, ask, no_timeouts, monkeypatch):
    monkeypatch.setattr(module, "DEADLINE_SECONDS", PATIENCE_SECONDS)
    hung = serve(None)
    client = ask(hung.port)

    def call(_: int) -> None:
        with pytest.raises(Unavailable):
            client.get("/")

    with ThreadPoolExecutor(THREADS) as threads:
        hanging = [threads.submit(call, number) for number in range(module.MAX_CONCURRENT_CALLS)]
        eventually(lambda: len(hung.requests) == module.MAX_CONCURRENT_CALLS)
        refused = [threads.submit(call, number) for number in range(20 * THREADS)]

        for one in refused:
            one.result(PATIENCE_SECONDS)
        assert not any(one.done() for one in hanging)
        assert len(hung.requests) == module.MAX_CONCURRENT_CALLS == THREADS / 2
        hung.stop()


def test_a_caller_learns_within_two_seconds_that_there_is_no_answer():
    assert module.DEADLINE_SECONDS < 2


@pytest.mark.parametrize("status", [b"502 No", b"504 No"])
@pytest.mark.usefixtures("ejected_for_good")
def test_an_instance_that_says_bad_gateway_is_passed_over_after_a_while(serve, ask, status):
    broken, well = serve(with_headers(status=status)), serve()
    client = ask(broken.port, well.port)

    for _ in range(60):
        client.get("/")

    assert len(broken.requests) == 5


def test_an_instance_whose_store_is_away_is_not_passed_over(serve, ask):
    unwell = serve(with_headers(status=b"503 No"))
    client = ask(unwell.port, serve().port)

    for _ in range(60):
        client.get("/")

    assert len(unwell.requests) > 5


def test_threads_share_a_client(serve, ask):
    client = ask(serve().port, serve().port)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.get("/").text)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == ["hello"] * 20
