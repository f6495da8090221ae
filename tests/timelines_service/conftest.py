"""A timelines service on an empty database and tube, and a users service that does as it is told."""

from collections.abc import Callable, Iterator

import greenstalk
import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.discovery.client import ServiceClient
from common.errors import ProblemDetails
from common.tokens import Tokens
from tests import tubes
from tests.instances import directory_of, instance
from timelines_service.app import create_app
from timelines_service.clients import PollsClient, UsersClient
from timelines_service.models import TUBE
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore
from timelines_service.tables import metadata


def problem_response(status: int, code: str) -> httpx.Response:
    problem = ProblemDetails(title="", status=status, detail="", code=code, request_id="")
    return httpx.Response(status, content=problem.model_dump_json())


class Users:
    """The users service: who follows whom, and whether it answers at all."""

    def __init__(self) -> None:
        self.followees: dict[str, list[str]] = {}
        self.hidden: dict[str, list[str]] = {}
        self.blocked: dict[str, list[str]] = {}
        self.is_of_last_version = False
        self.is_away = False
        self.statuses: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        response = self._answer(request)
        self.statuses.append(response.status_code)
        return response

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/home-sources/versions":
            return self._versions(request.url.params.get_list("username"))
        if self.is_away:
            return httpx.Response(503)
        if request.url.path == "/users":
            asked = request.url.params.get_list("username")
            return httpx.Response(200, json=[{"username": name} for name in asked if name in self.followees])
        _, _, username, *rest = request.url.path.split("/")
        if rest == ["home-sources"] and self.is_of_last_version:
            return problem_response(404, "not_found")
        if username not in self.followees:
            return httpx.Response(404)
        version = self._version(username)
        etag = f'"{version}"'
        if request.headers.get("if-none-match") == etag:
            return httpx.Response(304, headers={"ETag": etag})
        return httpx.Response(200, headers={"ETag": etag}, json=self._body(rest, username, version))

    def _versions(self, usernames: list[str]) -> httpx.Response:
        if self.is_of_last_version or self.is_away:
            return problem_response(404, "not_found") if self.is_of_last_version else httpx.Response(503)
        return httpx.Response(200, json={name: self._version(name) for name in usernames})

    def _version(self, username: str) -> str:
        return str(hash(str(self._sources(username))))

    def _sources(self, username: str) -> dict[str, list[str]]:
        return {name: getattr(self, name).get(username, []) for name in ("followees", "hidden", "blocked")}

    def _body(self, rest: list[str], username: str, version: str) -> object:
        sources = self._sources(username)
        return sources["followees"] if rest == ["followees"] else sources | {"version": version}


@pytest.fixture
def settings(postgres: int, beanstalkd_port: int) -> TimelinesSettings:
    return TimelinesSettings(
        _env_file=None,
        registry_url=None,
        db_port=postgres,
        timelines_db_name="test_timelines",
        beanstalkd_port=beanstalkd_port,
    )


@pytest.fixture
def tube(beanstalkd_port: int) -> Iterator[greenstalk.Client[bytes]]:
    """A client of its own, on the tube of posts, which is empty at first."""
    with greenstalk.Client(("127.0.0.1", beanstalkd_port), encoding=None, use=TUBE, watch=TUBE) as client:
        tubes.clear(client)
        yield client


@pytest.fixture
def store(settings: TimelinesSettings) -> Iterator[TimelinesStore]:
    store = TimelinesStore.connect(settings.database)
    store.prepare()
    with store._database.transaction() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    yield store
    store.close()


@pytest.fixture
def users() -> Users:
    return Users()


class Polls:
    """The polls service: whose each poll is, and whether it answers at all."""

    def __init__(self) -> None:
        self.authors: dict[str, str] = {}
        self.is_away = False
        self.calls = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.is_away:
            return httpx.Response(503)
        author = self.authors.get(request.url.path.removeprefix("/polls/"))
        return (
            httpx.Response(200, json={"created_by": author})
            if author
            else problem_response(404, "poll_not_found")
        )


@pytest.fixture
def polls() -> Polls:
    return Polls()


@pytest.fixture
def app(
    settings: TimelinesSettings, store: TimelinesStore, users: Users, polls: Polls, tokens: Tokens
) -> FastAPI:
    app = create_app(settings)

    def neighbour(name: str, service: Callable[[httpx.Request], httpx.Response]) -> ServiceClient:
        transport = httpx.MockTransport(service)
        return ServiceClient(name, directory_of(instance(1, name)), tokens, "timelines", transport)

    app.state.timelines._users = app.state.streams._users = UsersClient(neighbour("users", users))
    app.state.timelines._polls = PollsClient(neighbour("polls", polls))
    return app


@pytest.fixture
def client(app: FastAPI, tube: greenstalk.Client[bytes]) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client
