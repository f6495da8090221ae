"""How the polls service refuses a request."""

from common.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable


def poll_not_found() -> NotFound:
    return NotFound("poll_not_found", "There is no such poll.")


def option_out_of_range() -> BadRequest:
    return BadRequest("option_out_of_range", "There is no such option.")


def single_choice() -> BadRequest:
    return BadRequest("single_choice", "In this poll, a vote is for one option.")


def already_voted() -> Conflict:
    return Conflict("already_voted", "You have voted in this poll already.")


def poll_closed() -> Conflict:
    return Conflict("poll_closed", "This poll has ended.")


def not_yours() -> Forbidden:
    return Forbidden("not_yours", "A poll is deleted by its owner only.")


def deletion_unfinished() -> Unavailable:
    return Unavailable(
        "deletion_unfinished", "The poll is gone, but not all its votes yet: repeat the request."
    )
