"""Problem details (RFC 9457): how an error is rendered, and documented."""

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from common.api.headers import ERROR_HEADERS
from common.errors import BadRequest, FieldError, Problem, ProblemDetails, Unprocessable
from common.telemetry import context

PROBLEM_JSON = "application/problem+json"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's API document says of its errors."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": schema}},
            "headers": ERROR_HEADERS.get(status, {}),
        }
        for status in statuses
    }


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document the schemas that `problems` refers to."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs"), ProblemDetails=schema)
    return document


METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


def render(problem: Problem) -> JSONResponse:
    """The one place where an error becomes an answer."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": context.request_id.get(),
    }
    if problem.errors is not None:
        content["errors"] = [error.model_dump() for error in problem.errors]
    return ProblemResponse(content, problem.status, problem.headers)


class ProblemResponse(JSONResponse):
    media_type = PROBLEM_JSON

    def render(self, content: Any) -> bytes:
        # A lone surrogate in a field's name cannot be UTF-8, but it can be escaped ASCII.
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


def install(app: FastAPI) -> None:
    """Let `app` answer every error as problem details."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(ClientDisconnect, _client_disconnected)
    app.add_exception_handler(Exception, _internal_error)


async def _problem(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, Problem)
    return render(exc)


async def _http_exception(request: Request, exc: Exception) -> JSONResponse:
    """What the framework refuses by itself: unknown paths and methods."""
    assert isinstance(exc, HTTPException)
    status = HTTPStatus(exc.status_code)
    problem = Problem(status.phrase.lower().replace(" ", "_"), exc.detail, dict(exc.headers or {}))
    problem.status = status
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        # Where no route has the path, it is that of a file.
        allowed = [method for method in METHODS if _is_allowed(request, method)] or ["GET", "HEAD"]
        problem.headers = {"Allow": ", ".join(allowed)}
    return render(problem)


def _is_allowed(request: Request, method: str) -> bool:
    """The framework itself tells only of the first route that has the path."""
    scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def _validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    errors = [_field_error(error) for error in exc.errors()]
    return render(Unprocessable("malformed", f"{errors[0].pointer}: {errors[0].detail}", errors))


async def _client_disconnected(request: Request, exc: Exception) -> JSONResponse:
    """Nobody reads this answer; without it the log would tell of an error of ours."""
    return render(BadRequest("broken_off", "The request broke off before its end."))


async def _internal_error(request: Request, exc: Exception) -> JSONResponse:
    # Starlette calls this outside of every middleware, so these headers are ours to set.
    return render(Problem("internal_error", "Something went wrong on our side.", context.outgoing()))


def _field_error(error: dict[str, Any]) -> FieldError:
    location, *path = error["loc"]
    if error["type"] == "json_invalid":
        path = []  # what follows is an offset in the text, not a place in a document
    tokens = [str(token).replace("~", "~0").replace("/", "~1") for token in path]
    return FieldError(
        location=str(location),
        pointer="#" + "".join(f"/{token}" for token in tokens),
        code=error["type"],
        detail=error["msg"],
    )
