"""Errors are words of the domain with a status: raised anywhere, rendered here, once."""

import json
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from common.telemetry import request_id

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An answer that says what is wrong, as RFC 9457 problem details.

    `code` is one machine-readable word, `detail` a sentence for people.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class BadRequest(Problem):
    """Well-formed, but a rule forbids it."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorized(Problem):
    """No token, or one that is expired or not ours."""

    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, {"WWW-Authenticate": "Bearer"})


class Forbidden(Problem):
    """Somebody else's."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Problem):
    """What was named does not exist."""

    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(Problem):
    """Not with this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class Conflict(Problem):
    """Already so."""

    status = HTTPStatus.CONFLICT


class TooLarge(Problem):
    """The body is larger than anything this API takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UrlTooLong(Problem):
    """The URL is longer than any of this API's."""

    status = HTTPStatus.REQUEST_URI_TOO_LONG


class HeadersTooLarge(Problem):
    """More headers, or larger ones, than anything here needs."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class UnsupportedMediaType(Problem):
    """A body of another media type than the route reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Unprocessable(Problem):
    """Malformed, in a way that the request's model alone cannot see."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class TooManyRequests(Problem):
    """More than one client may ask for in this time."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class BadGateway(Problem):
    """The instance asked broke off before it answered."""

    status = HTTPStatus.BAD_GATEWAY


class Unavailable(Problem):
    """Something that this needs is not there now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, code: str, detail: str, retry_after: int = 2) -> None:
        super().__init__(code, detail, {"Retry-After": str(retry_after)})


class GatewayTimeout(Problem):
    """The instance asked did not answer in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    location: str = Field(examples=["body"])
    pointer: str = Field(description="A JSON pointer (RFC 6901) in a URI fragment.", examples=["#/text"])
    code: str = Field(examples=["string_too_long"])
    detail: str


class ProblemDetails(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such post."])
    code: str = Field(description="One machine-readable word.", examples=["post_not_found"])
    request_id: str
    errors: list[FieldError] | None = Field(None, description="With 422 only.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's API document says of its errors."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": schema}},
        }
        for status in statuses
    }


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document the schemas that `problems` refers to."""
    schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(schema.pop("$defs"), ProblemDetails=schema)
    return document


def render(problem: Problem, errors: list[dict[str, str]] | None = None) -> JSONResponse:
    """The one place where an error becomes an answer."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id.get(),
    }
    if errors is not None:
        content["errors"] = errors
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
    app.add_exception_handler(ClientDisconnect, _client_gone)
    app.add_exception_handler(Exception, _bug)


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
        problem.headers = {"Allow": ", ".join(filter(partial(_is_allowed, request), METHODS))}
    return render(problem)


def _is_allowed(request: Request, method: str) -> bool:
    """The framework itself tells only of the first route that has the path."""
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


async def _validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    errors = [_field_error(error) for error in exc.errors()]
    summary = Unprocessable("malformed", f"{errors[0]['pointer']}: {errors[0]['detail']}")
    return render(summary, errors)


async def _client_gone(request: Request, exc: Exception) -> JSONResponse:
    """Nobody reads this answer; without it the log would tell of an error of ours."""
    return render(BadRequest("broken_off", "The request broke off before its end."))


async def _bug(request: Request, exc: Exception) -> JSONResponse:
    # Starlette calls this outside of every middleware, so the header is ours to set.
    headers = {"X-Request-ID": request_id.get()}
    return render(Problem("internal_error", "Something went wrong on our side.", headers))


def _field_error(error: dict[str, Any]) -> dict[str, str]:
    location, *path = error["loc"]
    if error["type"] == "json_invalid":
        path = []  # what follows is an offset in the text, not a place in a document
    tokens = [str(token).replace("~", "~0").replace("/", "~1") for token in path]
    return {
        "location": str(location),
        "pointer": "#" + "".join(f"/{token}" for token in tokens),
        "code": error["type"],
        "detail": error["msg"],
    }
