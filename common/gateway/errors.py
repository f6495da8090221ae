"""How the gateway refuses a request that it would forward."""

from collections.abc import Iterator

from common.errors import (
    RETRY_SECONDS,
    BadGateway,
    BadRequest,
    GatewayTimeout,
    Problem,
    RequestTimedOut,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

MAX_BODY_BYTES = 1024 * 1024


def dot_segment() -> BadRequest:
    return BadRequest("dot_segment", "A path here has no segments . and ..")


def body_too_slow() -> RequestTimedOut:
    return RequestTimedOut("body_too_slow", "The body did not arrive in time.")


def body_too_large() -> TooLarge:
    return TooLarge("body_too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")


def too_many_requests(headers: dict[str, str]) -> TooManyRequests:
    detail = "This client has sent too many requests; try later."
    return TooManyRequests("too_many_requests", detail, headers)


def bad_gateway(name: str) -> BadGateway:
    detail = f"{name} broke off before it responded; the request may have had its effect or not."
    return BadGateway("bad_gateway", detail)


def unavailable(name: str) -> Unavailable:
    return Unavailable(f"{name}_unavailable", f"No instance of {name} can be reached.")


def overloaded(name: str) -> Unavailable:
    return Unavailable(f"{name}_overloaded", f"{name} has as many requests in flight as it may have.")


def no_room_for_streams() -> Unavailable:
    return Unavailable("no_room_for_streams", "This gateway has as many streams as it may have.")


def too_many_streams() -> TooManyRequests:
    detail = "This address has as many streams as one may have."
    return TooManyRequests("too_many_streams", detail, {"Retry-After": str(RETRY_SECONDS)})


def timeout(name: str) -> GatewayTimeout:
    return GatewayTimeout("timeout", f"{name} did not respond in time.")


def possible(name: str) -> Iterator[Problem]:
    """All of these, for one service."""
    yield from (dot_segment(), body_too_slow(), body_too_large(), too_many_requests({}))
    yield from (problem(name) for problem in (bad_gateway, unavailable, overloaded, timeout))
