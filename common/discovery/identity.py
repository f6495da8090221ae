"""Whether a response is from an instance of the service, or from whatever has taken its address."""

import httpx
from pydantic import ValidationError

from common.errors import PROBLEM_JSON, ProblemDetails

# What services of ours respond with, but for errors.
MEDIA_TYPES = ("application/json", "text/event-stream")
# The code for a path that no route of a service has; a service's own codes name what is missing.
UNKNOWN_ROUTE = "not_found"


class WrongInstance(httpx.ConnectError):
    """Something else answers at an instance's address: no instance of the service has got the request."""


class UnknownRoute(WrongInstance):
    """A service of ours answers that it has no such route: another service, or this one's last version.

    That is no reason to eject the instance: in a rolling upgrade, it serves all other routes.
    """


def is_foreign(status: int, content_type: str | None) -> bool:
    """Whether no service of ours responds like this: JSON or events, and problem details for an error."""
    expected = (PROBLEM_JSON,) if status >= 400 else MEDIA_TYPES
    return content_type is not None and not content_type.startswith(expected)


def is_unknown_route(status: int, body: bytes) -> bool:
    """Whether another service of ours responds: it has no route for the path."""
    try:
        return status == 404 and ProblemDetails.model_validate_json(body).code == UNKNOWN_ROUTE
    except ValidationError:
        return False
