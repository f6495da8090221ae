"""What endpoints depend on, taken from the request by us, or by FastAPI."""

from collections.abc import Iterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient

from common.api.auth import CurrentUser, OptionalSubject
from common.api.dependencies import RequestDependencies
from common.api.routing import from_state, router
from common.fields import RequestBody
from common.server.app import create_service
from common.settings import ServiceSettings

routes = router("tests")


class Note(RequestBody):
    text: str


async def first_word(request: Request) -> str:
    return (await request.body()).decode().partition(" ")[0]


async def page_of(user: CurrentUser, limit: int = 20) -> str:
    return f"{limit} of {user}"


@routes.post("/notes")
def write(note: Note, user: CurrentUser) -> str:
    return f"{user}: {note.text}"


@routes.post("/words")
def word(
    word: Annotated[str, Depends(first_word)],
    shelf: Annotated[str, from_state("shelf")],
    request: Request,
    subject: OptionalSubject,
) -> list[str]:
    return [word, shelf, request.url.path, str(subject)]


@routes.get("/pages", dependencies=[Depends(first_word)])
def page(page: Annotated[str, Depends(page_of)], subject: OptionalSubject) -> list[str]:
    return [page, str(subject)]


@routes.post("/requests")
def ask(request: Note, subject: OptionalSubject) -> str:
    return request.text


@routes.get("/found")
def found(q: str, limit: int = 20) -> list[str]:
    return [q] * limit


@pytest.fixture(scope="module")
def app() -> FastAPI:
    settings = ServiceSettings(_env_file=None, registry_url=None, port=1)
    app = create_service("tests", "For tests.", settings, [routes])
    app.state.shelf = "the upper one"
    return app


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def _bearer(app: FastAPI, subject: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {app.state.tokens.issue(subject)}"}


def test_an_endpoint_gets_what_it_depends_on(app: FastAPI, client: TestClient) -> None:
    answer = client.post("/words", content="so it goes", headers=_bearer(app, "alice"))

    assert answer.json() == ["so", "the upper one", "/words", "alice"]


def test_a_body_may_be_called_request(client: TestClient) -> None:
    assert client.post("/requests", json={"text": "please"}).json() == "please"


def test_a_dependency_that_has_parameters_gets_them_too(app: FastAPI, client: TestClient) -> None:
    answer = client.get("/pages?limit=3", headers=_bearer(app, "alice"))

    assert answer.json() == ["3 of alice", "alice"]


def test_only_that_one_is_left_to_fastapi(app: FastAPI) -> None:
    route = next(route for route in routes.routes if getattr(route, "path", None) == "/pages")

    assert [one.call for one in RequestDependencies(route.dependant).rest.dependencies] == [page_of]


def test_without_a_query_its_parameters_have_their_defaults(app: FastAPI, client: TestClient) -> None:
    answer = client.get("/pages", headers=_bearer(app, "alice"))

    assert answer.json() == ["20 of alice", "alice"]


def test_a_required_parameter_of_the_query_is_asked_for(client: TestClient) -> None:
    answer = client.get("/found")

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/q")


def test_a_service_is_refused_before_its_body_is_read(app: FastAPI, client: TestClient) -> None:
    answer = client.post("/notes", content="{", headers=_bearer(app, "service:timelines"))

    assert answer.json()["code"] == "users_only"


def test_the_api_document_says_which_calls_need_a_token(app: FastAPI) -> None:
    paths = app.openapi()["paths"]

    assert paths["/notes"]["post"]["security"] == paths["/pages"]["get"]["security"] == [{"bearer": []}]
