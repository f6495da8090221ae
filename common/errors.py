"""Errors are words of the domain with a status: raised anywhere, rendered in one place (rendering.py)."""

from http import HTTPStatus

from pydantic import BaseModel, Field

# What is away is mostly back so soon.
RETRY_SECONDS = 2


class Problem(Exception):
    """An answer that says what is wrong, as RFC 9457 problem details.

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


class RequestTimedOut(Problem):
    """The request itself is too long on its way; the rest of it is not waited for."""

    status = HTTPStatus.REQUEST_TIMEOUT

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, {"Connection": "close"})


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
    """Malformed: what is wrong, part by part."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY

    def __init__(self, code: str, detail: str, errors: list["FieldError"]) -> None:
        super().__init__(code, detail)
        self.errors = errors


class TooManyRequests(Problem):
    """More than one client may ask for in this time."""

    status = HTTPStatus.TOO_MANY_REQUESTS


class BadGateway(Problem):
    """The instance asked broke off before it answered."""

    status = HTTPStatus.BAD_GATEWAY


class Unavailable(Problem):
    """Something that this needs is not there now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail, {"Retry-After": str(RETRY_SECONDS)})


class GatewayTimeout(Problem):
    """The instance asked did not answer in time."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class CredentialsRejected(Exception):
    """A server rejects the user or password of our settings, until an operator corrects one of the two.

    The text is for the log: it names the server, the user and the variable.
    """


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
