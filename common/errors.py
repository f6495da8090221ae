"""Errors of the domain, each with a status: raised anywhere, rendered in one place (api/problems.py)."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

PROBLEM_JSON = "application/problem+json"

# Most outages are over by then.
RETRY_SECONDS = 2


class Problem(Exception):
    """An error response, as RFC 9457 problem details.

    `code` is one machine-readable word, `detail` a sentence for people.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    errors: list["FieldError"] | None = None

    def __init__(self, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = headers or {}


class BadRequest(Problem):
    """The request is well-formed, but a rule forbids it."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorized(Problem):
    """The request has no token, or one that is invalid or expired."""

    status = HTTPStatus.UNAUTHORIZED

    def __init__(self, code: str, detail: str, challenge: str = "Bearer") -> None:
        super().__init__(code, detail, {"WWW-Authenticate": challenge})


class Forbidden(Problem):
    """The token's user has no right to this."""

    status = HTTPStatus.FORBIDDEN


class NotFound(Problem):
    """What the request names does not exist."""

    status = HTTPStatus.NOT_FOUND


class MethodNotAllowed(Problem):
    """The path exists, but does not support this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED


class Conflict(Problem):
    """The present state forbids it: a username is taken, a vote is cast."""

    status = HTTPStatus.CONFLICT


class RequestTimedOut(Problem):
    """The client takes too long to send the request. The connection closes, since the rest may still come."""

    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, {"Connection": "close"})


class TooLarge(Problem):
    """The body is larger than any that this API accepts."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UrlTooLong(Problem):
    """The URL is longer than any of this API."""

    status = HTTPStatus.REQUEST_URI_TOO_LONG


class HeadersTooLarge(Problem):
    """The request has more headers, or larger ones, than this API accepts."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class UnsupportedMediaType(Problem):
    """The body is of another media type than the route reads."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Unprocessable(Problem):
    """The request is malformed; `errors` says which fields, and why."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, code: str, detail: str, errors: list["FieldError"]) -> None:
        super().__init__(code, detail)
        self.errors = errors


class TooManyRequests(Problem):
    """The client has sent more requests than it may in this time."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class BadGateway(Problem):
    """The instance broke off before it responded."""

    status = HTTPStatus.BAD_GATEWAY


class Unavailable(Problem):
    """A store or a service that the request needs is unavailable now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, {"Retry-After": str(RETRY_SECONDS)})


class GatewayTimeout(Problem):
    """The instance did not respond in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT


def store_unavailable(name: str) -> Unavailable:
    return Unavailable(f"{name}_unavailable", f"{name} is unavailable; try again soon.")


class CannotServe(Exception):
    """A server responds, but cannot do what is needed now: it is read-only, loading or full, for example.

    The text is for the log and for `GET /health`. It gives the reason, and neither addresses nor credentials.
    """


class CredentialsRejected(Exception):
    """A server rejects the user or password of our settings, until an operator corrects one of the two.

    The text is for the log: it names the server, the user and the variable.
    """


def outage_reason(exc: Exception) -> str:
    """What `GET /health` says of what cannot serve."""
    match exc:
        case CannotServe():
            return str(exc)
        case CredentialsRejected():
            return "rejects the credentials"
        case TimeoutError():
            return "does not respond in time"
        case _:
            return "cannot be reached"


class FieldError(BaseModel):
    """What is wrong with one part of a request."""

    location: str = Field(examples=["body"])
    pointer: str = Field(description="A JSON pointer (RFC 6901) in a URI fragment.", examples=["#/text"])
    code: str = Field(examples=["string_too_long"])
    detail: str = Field(examples=["String should have at most 280 characters"])


class ProblemDetails(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="One machine-readable word.")
    request_id: str
    errors: list[FieldError] | None = Field(None, description="With 422 only.")


def problem_details(problem: Problem, request_id: str) -> dict[str, Any]:
    """The body of a response that is this problem (RFC 9457)."""
    details: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors is not None:
        details["errors"] = [error.model_dump() for error in problem.errors]
    return details
