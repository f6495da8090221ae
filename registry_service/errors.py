"""How the registry refuses a request."""

from common.errors import Conflict, NotFound, Unauthorized, Unavailable


def token_required() -> Unauthorized:
    return Unauthorized("token_required", "This registry requires its REGISTRY_TOKEN as a bearer token.")


def local_only() -> Unauthorized:
    detail = "This registry has no REGISTRY_TOKEN: only its own machine may register instances."
    return Unauthorized("token_required", detail)


def invalid_token() -> Unauthorized:
    return Unauthorized("invalid_token", "This is not this registry's REGISTRY_TOKEN.")


def too_many_instances(at_most: int) -> Conflict:
    return Conflict("too_many_instances", f"There are at most {at_most} instances.")


def unknown_instance() -> NotFound:
    return NotFound("unknown_instance", "There is no such instance (any more): register again.")


def service_not_found(service_name: str) -> NotFound:
    return NotFound("service_not_found", f"No instance of {service_name} has ever registered here.")


def leaving() -> Unavailable:
    return Unavailable("leaving", "The registry is about to stop.")
