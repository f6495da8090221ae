"""What a client gets when something else has taken the address of an instance."""

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import uvicorn
from fastapi.testclient import TestClient

from common.errors import PROBLEM_JSON
from common.gateway.forwarded_request import REPLAYABLE_BYTES
from common.server.run import uvicorn_config
from registry_service.app import create_app
from registry_service.settings import RegistrySettings
from tests.instances import instance
from tests.serving import serving


@pytest.fixture
def file_server() -> Iterator[int]:
    """Python's own server of files: HTML for every error."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def other_service() -> Iterator[int]:
    """A service of ours without the routes of another one; its port."""
    settings = RegistrySettings(_env_file=None, port=1)
    config = uvicorn_config(create_app(settings), settings)
    config.port = 0
    server = uvicorn.Server(config)
    with serving(server):
        yield server.servers[0].sockets[0].getsockname()[1]


@pytest.fixture(params=["file_server", "other_service"])
def stranger(request: pytest.FixtureRequest) -> int:
    """The port of a server that is no instance of timelines."""
    port: int = request.getfixturevalue(request.param)
    return port


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_a_stranger_alone_is_503(client: TestClient, listed, stranger: int, method: str) -> None:
    listed(instance(stranger, "timelines"))

    assert client.request(method, "/posts/id/1").status_code == 503


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_request_that_a_stranger_got_goes_to_an_instance(
    client: TestClient, start, listed, stranger: int, method: str
) -> None:
    listed(instance(stranger, "timelines"), start("timelines").as_instance())

    assert {client.request(method, "/posts", json={}).status_code for _ in range(8)} == {200}


@pytest.mark.usefixtures("ejected_for_good")
def test_a_stranger_gets_one_request(client: TestClient, start, listed) -> None:
    stranger, own = start("timelines"), start("timelines")
    stranger.behaviour = lambda answer: answer.reply(200, b"<p>", (("Content-Type", "text/html"),))
    listed(stranger.as_instance(), own.as_instance())

    for _ in range(40):
        client.get("/posts")

    assert len(stranger.requests) == 1


def test_a_long_body_that_a_stranger_has_read_is_502(client: TestClient, start, listed) -> None:
    stranger = start("timelines")
    stranger.behaviour = lambda answer: answer.reply(200, b"<p>", (("Content-Type", "text/html"),))
    listed(stranger.as_instance(), start("timelines").as_instance())

    statuses = [
        client.post("/posts", content=bytes(REPLAYABLE_BYTES + 1)).status_code
        for _ in range(8)
        if not stranger.requests
    ]

    assert statuses[-1] == 502


@pytest.mark.parametrize(
    ("status", "content_type"),
    [
        (200, "text/html"),
        (302, "text/html"),
        (200, "text/plain; version=0.0.4"),
        (404, "application/json"),
        (501, "text/html"),
    ],
)
def test_no_response_of_a_stranger_is_passed_on(
    client: TestClient, timelines, status: int, content_type: str
) -> None:
    timelines.behaviour = lambda answer: answer.reply(status, headers=(("Content-Type", content_type),))

    assert client.get("/posts", follow_redirects=False).status_code == 503


def test_a_services_own_404_is_passed_on(client: TestClient, timelines) -> None:
    problem = b'{"title":"-","status":404,"detail":"-","code":"post_not_found","request_id":"-"}'
    timelines.behaviour = lambda answer: answer.reply(404, problem, (("Content-Type", PROBLEM_JSON),))

    response = client.get("/posts/id/1")

    assert (response.status_code, response.content) == (404, problem)


def test_a_path_that_no_service_has_for_its_escaped_slash_is_404(
    client: TestClient, listed, other_service: int
) -> None:
    listed(instance(other_service, "timelines"))

    assert client.get("/posts/a%2Fb").status_code == 404
