"""How the likes service refuses a request."""

from common.errors import BadRequest


def unknown_cursor(before: str) -> BadRequest:
    return BadRequest("unknown_cursor", f"{before} is not on this list any more.")
