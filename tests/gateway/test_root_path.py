"""A gateway below a path of the proxy in front, whether that proxy strips the path or not."""

import re
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

import gateway
from tests.gateway.conftest import Upstream
from tests.instances import snapshot_of

ROOT = "/microblog"


@pytest.fixture
def timelines(start) -> Upstream:
    upstream: Upstream = start("timelines")
    return upstream


@pytest.fixture
def below(timelines: Upstream) -> Iterator[TestClient]:
    """A client of a gateway below a path."""
    app = gateway.create_app(
        gateway.GatewaySettings(
            _env_file=None,
            registry_url=None,
            root_path=ROOT,
            trusted_proxies="10.0.0.1",
            cors_origins="https://example.com",
        )
    )
    app.state.directory.update(snapshot_of(timelines.as_instance()), now=0)
    with TestClient(app) as client:
        yield client


@pytest.fixture(params=["", ROOT], ids=["stripped", "left"])
def sent(request: pytest.FixtureRequest) -> str:
    """What the proxy in front sends before each path."""
    prefix: str = request.param
    return prefix


def test_a_service_sees_its_own_path(below: TestClient, timelines: Upstream, sent: str) -> None:
    below.get(f"{sent}/posts/a%20b?limit=1")

    assert timelines.requests[0].path == "/posts/a%20b?limit=1"


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/livez"])
def test_the_gateways_own_pages_are_there(below: TestClient, sent: str, path: str) -> None:
    assert below.get(sent + path).status_code == 200


def test_the_path_itself_is_the_front_page(below: TestClient) -> None:
    assert below.get(ROOT).json() == below.get("/").json()


@pytest.mark.parametrize("path", ["/microblogs/posts", "/microblog%2Fposts", "/microblog/microblog/posts"])
def test_another_path_is_404(below: TestClient, path: str) -> None:
    assert below.get(path).status_code == 404


@pytest.mark.parametrize(
    ("name", "said", "passed_on"),
    [
        ("Location", "/posts/id/1", "/microblog/posts/id/1"),
        ("Content-Location", "/posts/id/1", "/microblog/posts/id/1"),
        ("Location", "https://example.org/posts", "https://example.org/posts"),
        ("Location", "//example.org/posts", "//example.org/posts"),
        ("Location", "1", "1"),
        (
            "Link",
            '</posts?limit=1>; rel="next", </posts?u=/a>; rel="prev"',
            '</microblog/posts?limit=1>; rel="next", </microblog/posts?u=/a>; rel="prev"',
        ),
        ("X-Path", "/posts", "/posts"),
    ],
)
def test_a_reference_in_a_header_stays_below(
    below: TestClient, timelines: Upstream, sent: str, name: str, said: str, passed_on: str
) -> None:
    timelines.behaviour = lambda answer: answer.reply(201, headers=((name, said),))

    assert below.get(f"{sent}/posts").headers[name] == passed_on


def test_the_front_page_leads_to_pages_below(below: TestClient) -> None:
    overview = below.get("/").json()

    assert (overview["docs"], overview["openapi"]) == ("/microblog/docs", "/microblog/openapi.json")


def test_the_swagger_page_loads_what_is_below(below: TestClient) -> None:
    page = below.get("/docs").text

    paths = re.findall(r"""(?:href|src)="(/[^"]+)"|url: '(/[^']+)'""", page)
    assert len(paths) >= 4
    assert all("".join(one).startswith("/microblog/") for one in paths)


def test_the_api_document_says_where_it_is_and_where_to_sign_in(below: TestClient) -> None:
    document = below.get("/openapi.json").json()

    login = document["components"]["securitySchemes"]["login"]["flows"]["password"]["tokenUrl"]
    assert (document["servers"], login) == ([{"url": ROOT}], "/microblog/login")


def test_without_a_path_the_api_document_names_no_server(client: TestClient) -> None:
    assert "servers" not in client.get("/openapi.json").json()


@pytest.mark.parametrize("given", ["", "/", "/a", "/a/", "/a/b-c/~d"])
def test_a_root_path_is_a_path(given: str) -> None:
    settings = gateway.GatewaySettings(_env_file=None, root_path=given)

    assert settings.root_path == given.removesuffix("/")


@pytest.mark.parametrize(
    "given",
    ["microblog", "//example.org", "/a//b", "/a b", "/a?b", "/a/..", "/.", "https://e.org/a", "/é"],
)
def test_what_is_no_path_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="such as"):
        gateway.GatewaySettings(_env_file=None, root_path=given)


@pytest.mark.parametrize("given", ["/posts", "/users/alice", "/docs", "/health/"])
def test_a_root_path_that_could_be_one_of_the_apis_is_refused(given: str) -> None:
    with pytest.raises(ValidationError, match="begin like this"):
        gateway.GatewaySettings(_env_file=None, root_path=given)
