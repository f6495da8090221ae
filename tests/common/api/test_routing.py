"""What every route does before and after it is asked: tokens, bodies, errors, ids."""

import logging
from collections.abc import Iterator
from typing import Annotated

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import Field, StringConstraints

from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.routing import MAX_BODY_BYTES, router
from common.errors import Conflict
from common.fields import PRINTABLE, Id, RequestBody, Username
from common.server.app import create_service
from common.settings import ServiceSettings

routes = router("tests")


class Note(RequestBody):
    text: Annotated[str, StringConstraints(strip_whitespace=True), PRINTABLE]
    stars: Annotated[int, Field(ge=0)] = 0


@routes.post("/notes")
def write(note: Note, username: CurrentUser) -> Note:
    """Write a note."""
    return note


@routes.get("/notes/{note_id}", openapi_extra=TOKEN_OPTIONAL)
def read(note_id: Id, subject: OptionalSubject) -> str:
    return str(subject)


@routes.get("/taken/{username}")
def taken(username: Username) -> None:
    raise Conflict("taken", f"{username} is taken.")


@routes.get("/bug")
def bug() -> None:
    raise RuntimeError("a secret reason")


@pytest.fixture(scope="module")
def app() -> FastAPI:
    settings = ServiceSettings(_env_file=None, registry_url=None, port=1)
    return create_service("tests", "For tests.", settings, [routes])


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


JSON = {"Content-Type": "application/json"}
LARGE = b" " * (MAX_BODY_BYTES + 1)


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer x"}, {"Authorization": "Basic YTpi"}])
@pytest.mark.parametrize("body", [b"", b"{", b"{}", LARGE])
def test_the_token_is_looked_at_before_the_body(client: TestClient, header: dict, body: bytes) -> None:
    answer = client.post("/notes", content=body, headers=JSON | header)

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_the_type_of_the_body_is_looked_at_before_it_is_read(client: TestClient, as_user) -> None:
    answer = client.post("/notes", content=b"{", headers=as_user("alice") | {"Content-Type": "text/plain"})

    assert answer.status_code == 415


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_large_body_is_413(client: TestClient, as_user, is_chunked: bool) -> None:
    body = iter([LARGE]) if is_chunked else LARGE

    assert client.post("/notes", content=body, headers=JSON | as_user("alice")).status_code == 413


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", "#"),
        (b"{", "#"),
        (b"[]", "#"),
        (b"[" * 5000, "#"),
        (b'{"text": "a", "stars": NaN}', "#"),
        (b'{"text": "\xff"}', "#"),
        (b'{"text": "\\ud800"}', "#"),
        (b"{}", "#/text"),
        (b'{"text": 1}', "#/text"),
        (b'{"text": "\\u0000"}', "#/text"),
        (b'{"text": "\\u001b[31m"}', "#/text"),
        (b'{"text": "a", "stars": -1}', "#/stars"),
        (b'{"text": "a", "a/b~c": 1}', "#/a~1b~0c"),
        ('{"text": "a", "ü %": 1}'.encode(), "#/%C3%BC%20%25"),
        (b'{"text": "a", "stars": 1e999}', "#/stars"),
        (b'{"text": "a", "stars": ' + b"1" * 5000 + b"}", "#"),
        (b'{"text": ' + b'{"a":' * 5000, "#"),
    ],
)
def test_what_is_wrong_with_a_body_is_pointed_at(
    client: TestClient, as_user, body: bytes, pointer: str
) -> None:
    answer = client.post("/notes", content=body, headers=JSON | as_user("alice"))

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_is_read_however_it_is_called(client: TestClient, as_user, kind: str) -> None:
    headers = as_user("alice") | {"Content-Type": kind}

    assert client.post("/notes", content=b'{"text": "a"}', headers=headers).status_code == 200


@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_largest_body_is_read(client: TestClient, as_user, is_chunked: bool) -> None:
    body = b'{"text": "a"}'.ljust(MAX_BODY_BYTES)
    sent = iter([body[:1000], body[1000:]]) if is_chunked else body

    assert client.post("/notes", content=sent, headers=JSON | as_user("alice")).status_code == 200


def test_a_body_without_a_type_is_415(client: TestClient, as_user) -> None:
    assert client.post("/notes", content=b'{"text": "a"}', headers=as_user("alice")).status_code == 415


def test_a_service_is_no_user(client: TestClient, as_service) -> None:
    answer = client.post("/notes", json={"text": "a"}, headers=as_service("likes"))

    assert (answer.status_code, answer.json()["code"]) == (403, "users_only")


def test_newlines_tabs_and_emoji_may_be_in_a_text(client: TestClient, as_user) -> None:
    answer = client.post("/notes", json={"text": " a\n\tb 😀 "}, headers=as_user("alice"))

    assert answer.json()["text"] == "a\n\tb 😀"


def test_without_a_token_where_it_is_optional_there_is_no_subject(client: TestClient, as_user) -> None:
    path = "/notes/019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"

    assert (client.get(path).json(), client.get(path, headers=as_user("alice")).json()) == ("None", "alice")


def test_an_error_is_problem_details(client: TestClient) -> None:
    answer = client.get("/taken/Alice", headers={"X-Request-ID": "mine"})

    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "alice is taken.",
        "code": "taken",
        "request_id": "mine",
    }


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/x", "not_found"), ("PUT", "/notes", "method_not_allowed")]
)
def test_what_the_framework_refuses_is_problem_details(
    client: TestClient, method: str, path: str, code: str
) -> None:
    assert client.request(method, path).json()["code"] == code


def test_a_bug_is_a_500_that_tells_nothing(client: TestClient) -> None:
    answer = client.get("/bug", headers={"X-Request-ID": "mine"})

    assert (answer.status_code, answer.headers["X-Request-ID"]) == (500, "mine")
    assert "secret" not in answer.text


@pytest.mark.parametrize("given", ["a-b.C_9", "x" * 128])
def test_a_request_id_is_kept(client: TestClient, given: str) -> None:
    assert client.get("/livez", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "ä".encode().decode("latin-1")])
def test_a_malformed_request_id_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given.encode("latin-1")})

    assert answer.headers["X-Request-ID"] not in ("", given)


def test_requests_are_logged_and_machines_are_not(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="access"):
        client.get("/livez")
        client.get("/taken/alice")

    lines = [record.getMessage() for record in caplog.records if record.name == "access"]
    assert [line.rpartition(" 409 ")[0] for line in lines] == ["GET /taken/alice"]


def test_the_document_says_where_a_token_is_needed_and_where_optional(app: FastAPI) -> None:
    paths = app.openapi()["paths"]

    assert paths["/notes"]["post"]["security"] == [{"bearer": []}]
    assert paths["/notes/{note_id}"]["get"]["security"] == [{"bearer": []}, {}]
