"""Problem details (RFC 9457): how an error is rendered, and documented."""

import json
from collections.abc import Sequence
from copy import deepcopy
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from common.api.headers import ERROR_HEADERS
from common.errors import PROBLEM_JSON, BadRequest, FieldError, Problem, Unprocessable, problem_details
from common.telemetry import context

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

# What a URI's fragment may have as it is, besides letters and digits (RFC 3986, section 3.5).
IN_FRAGMENT = "!$&'()*+,;=:@/?"

EXAMPLE_REQUEST_ID = "0b1f6c1e9a4d4e0f8c2b7a6d5e4f3c2b"

Responses = dict[int | str, dict[str, Any]]


def problems(*possible: Problem) -> Responses:
    """What an API document says of the errors that a route may raise: each one is its own example."""
    responses: Responses = {}
    for problem in possible:
        response = responses.setdefault(
            problem.status.value,
            {
                "description": problem.status.phrase,
                "content": {
                    PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}
                },
                "headers": ERROR_HEADERS.get(problem.status, {}),
            },
        )
        example = {"value": problem_details(problem, EXAMPLE_REQUEST_ID)}
        response["content"][PROBLEM_JSON]["examples"].setdefault(problem.code, example)
    return responses


def merged(*documented: Responses) -> Responses:
    """The responses of several sources by status; one that several have gets the examples of all."""
    merged: Responses = {}
    for responses in documented:
        for status, response in deepcopy(responses).items():
            earlier = merged.setdefault(status, response)
            if earlier is not response:
                merged[status] = response
                _examples(response).update(_examples(earlier) | _examples(response))
    return dict(sorted(merged.items(), key=str))


def _examples(response: dict[str, Any]) -> dict[str, Any]:
    examples: dict[str, Any] = response.get("content", {}).get(PROBLEM_JSON, {}).get("examples", {})
    return examples


def render(problem: Problem) -> JSONResponse:
    """The one place where an error becomes a response."""
    details = problem_details(problem, context.request_id.get())
    return ProblemResponse(details, problem.status, problem.headers)


def internal_error() -> JSONResponse:
    return render(Problem("internal_error", "Something went wrong on our side."))


class ProblemResponse(JSONResponse):
    media_type = PROBLEM_JSON

    def render(self, content: Any) -> bytes:
        # A lone surrogate in a field's name cannot be UTF-8, but it can be escaped ASCII.
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def install(app: FastAPI) -> None:
    """Let `app` respond to every error with problem details."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    app.add_exception_handler(Exception, _internal_error)


async def _problem(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, Problem)
    return render(exc)


async def _http_exception(request: Request, exc: Exception) -> JSONResponse:
    """What the framework itself refuses: unknown paths and methods."""
    assert isinstance(exc, HTTPException)
    status = HTTPStatus(exc.status_code)
    problem = Problem(status.phrase.lower().replace(" ", "_"), exc.detail, dict(exc.headers or {}))
    problem.status = status
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # A path that no route has is a file's.
        allowed = [method for method in METHODS if _is_allowed(request, method)] or ["GET", "HEAD"]
        problem.headers = {"Allow": ", ".join(allowed)}
    return render(problem)


def _is_allowed(request: Request, method: str) -> bool:
    """The framework itself names only the methods of the first route that has the path."""
    scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def _validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    return render(malformed(exc.errors()))


def malformed(errors: Sequence[Any]) -> Unprocessable:
    """What validation found, as a problem."""
    fields = [_field_error(error) for error in errors]
    return Unprocessable("malformed", f"{fields[0].pointer}: {fields[0].detail}", fields)


async def _client_disconnected(request: Request, exc: Exception) -> JSONResponse:
    """The client has gone and reads no response; without this one, the log would have an internal error."""
    return render(BadRequest("broken_off", "The request broke off before its end."))


async def _internal_error(request: Request, exc: Exception) -> JSONResponse:
    return internal_error()


def _field_error(error: dict[str, Any]) -> FieldError:
    location, *path = error["loc"]
    if error["type"] == "json_invalid":
        path = []  # what follows is an offset in the text, not a place in a document
    tokens = [str(token).replace("~", "~0").replace("/", "~1") for token in path]
    return FieldError(
        location=str(location),
        pointer="#" + "".join(f"/{quote(token, safe=IN_FRAGMENT, errors='replace')}" for token in tokens),
        code=error["type"],
        detail=error["msg"],
    )
