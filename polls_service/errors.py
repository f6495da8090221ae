"""How the polls service refuses a request."""

from common.errors import BadRequest, Conflict, NotFound


def poll_not_found() -> NotFound:
    return NotFound("poll_not_found", "There is no such poll.")


def option_out_of_range() -> BadRequest:
    return BadRequest("option_out_of_range", "There is no such option.")


def already_voted() -> Conflict:
    return Conflict("already_voted", "You have voted in this poll already.")
