"""How the likes service refuses a request."""

from common.errors import BadRequest


def unknown_cursor(cursor: str) -> BadRequest:
    return BadRequest("unknown_cursor", f"{cursor} is not on this list any more.")
