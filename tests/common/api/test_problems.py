"""Errors as answers: one shape, rendered in one place."""

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common import errors
from common.api.problems import problems, render
from common.api.routing import MAX_BODY_BYTES, router
from common.errors import PROBLEM_JSON, Problem
from common.fields import RequestBody
from common.server.app import create_service
from common.settings import ServiceSettings

routes = router("tests")


class Box(RequestBody):
    sizes: list[int]


@routes.post("/boxes", responses=problems(errors.NotFound("box_not_found", "There is no such box.")))
def make(box: Box, limit: int = 1) -> Box:
    """Make a box."""
    return box


@pytest.fixture(scope="module")
def app() -> FastAPI:
    settings = ServiceSettings(_env_file=None, registry_url=None, port=1)
    return create_service("tests", "For tests.", settings, [routes])


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadRequest, 400),
        (errors.Unauthorized, 401),
        (errors.Forbidden, 403),
        (errors.NotFound, 404),
        (errors.Conflict, 409),
        (errors.TooLarge, 413),
        (errors.UnsupportedMediaType, 415),
        (partial(errors.Unprocessable, errors=[]), 422),
        (errors.BadGateway, 502),
        (errors.Unavailable, 503),
        (errors.GatewayTimeout, 504),
    ],
)
def test_an_error_has_its_status(error: Callable[[str, str], Problem], status: int) -> None:
    answer = render(error("a_code", "A detail."))
    body = json.loads(answer.body)

    assert (answer.status_code, answer.media_type) == (status, PROBLEM_JSON)
    assert (body["status"], body["title"]) == (status, HTTPStatus(status).phrase)
    assert (body["code"], body["detail"], body["type"]) == ("a_code", "A detail.", "about:blank")


def test_what_is_not_there_now_says_when_to_come_back() -> None:
    assert render(errors.Unavailable("down", "Down.")).headers["Retry-After"] == "2"


def test_who_is_not_known_learns_how_to_sign_in() -> None:
    assert render(errors.Unauthorized("token_required", "Sign in.")).headers["WWW-Authenticate"] == "Bearer"


def test_only_what_is_malformed_lists_errors(client: TestClient) -> None:
    assert "errors" not in client.get("/nowhere").json()
    assert len(client.post("/boxes?limit=x", json={"sizes": ["a", "b"]}).json()["errors"]) == 3


def test_each_error_says_where_it_is(client: TestClient) -> None:
    found = client.post("/boxes?limit=x", json={"sizes": [1, "b"]}).json()["errors"]

    assert {(error["location"], error["pointer"], error["code"]) for error in found} == {
        ("query", "#/limit", "int_parsing"),
        ("body", "#/sizes/1", "int_parsing"),
    }


def test_a_malformed_value_is_not_sent_back(client: TestClient) -> None:
    assert "a secret" not in client.post("/boxes", json={"sizes": ["a secret"]}).text


@pytest.mark.parametrize("name", ["\ud800", "ü", "\x00", '"'])
def test_whatever_a_field_is_called_the_answer_is_json(client: TestClient, name: str) -> None:
    body = json.dumps({"sizes": [], name: 1}).encode()
    answer = client.post("/boxes", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.content.isascii()


def test_another_method_says_which_ones_there_are(client: TestClient) -> None:
    answer = client.delete("/boxes")

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


def test_who_may_get_may_ask_for_the_head_alone(client: TestClient) -> None:
    assert client.post("/livez").headers["Allow"] == "GET, HEAD"
    assert client.head("/livez").status_code == 200


def test_another_method_on_a_file_says_which_ones_there_are(client: TestClient) -> None:
    assert client.post("/docs/assets/swagger-ui.css").headers["Allow"] == "GET, HEAD"


def test_a_path_is_not_another_one_with_a_slash(client: TestClient) -> None:
    assert client.get("/livez/", follow_redirects=False).status_code == 404


def test_the_document_has_every_error_in_its_one_shape(app: FastAPI) -> None:
    document = app.openapi()
    answers = document["paths"]["/boxes"]["post"]["responses"]

    assert {"404", "422"} <= set(answers)
    content = answers["404"]["content"][PROBLEM_JSON]
    assert content["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
    assert content["examples"]["box_not_found"]["value"]["detail"] == "There is no such box."
    assert {"ProblemDetails", "FieldError"} <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json"}, b"{}"),
        ({"Content-Type": "application/json"}, b" " * (MAX_BODY_BYTES + 1)),
        ({"Content-Type": "text/plain"}, b"{}"),
    ],
)
def test_what_a_route_refuses_by_itself_is_documented_as_it_is_answered(
    app: FastAPI, client: TestClient, headers: dict[str, str], body: bytes
) -> None:
    answer = client.post("/boxes", content=body, headers=headers)
    documented = app.openapi()["paths"]["/boxes"]["post"]["responses"][str(answer.status_code)]
    example = documented["content"][PROBLEM_JSON]["examples"][answer.json()["code"]]["value"]

    assert example | {"request_id": answer.json()["request_id"]} == answer.json()


def test_two_errors_of_one_status_are_two_examples() -> None:
    documented = problems(errors.NotFound("no_box", "No box."), errors.NotFound("no_lid", "No lid."))

    assert list(documented[404]["content"][PROBLEM_JSON]["examples"]) == ["no_box", "no_lid"]


def test_a_client_that_breaks_off_is_no_error_of_ours(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    received = [{"type": "http.request", "body": b'{"siz', "more_body": True}, {"type": "http.disconnect"}]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/boxes",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> dict:
        return received.pop(0)

    async def send(message: dict) -> None:
        """Nobody is there to read it."""

    with caplog.at_level(logging.ERROR):
        anyio.run(app, scope, receive, send)

    assert caplog.records == []
