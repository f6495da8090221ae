"""How the users service refuses a request."""

from common.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)
from users_service.models import MAX_FOLLOWEES, MAX_MARKS


def username_taken(username: str) -> Conflict:
    return Conflict("username_taken", f"The name {username} is taken.")


def email_taken() -> Conflict:
    return Conflict("email_taken", "Another account has this e-mail address.")


def wrong_credentials() -> Unauthorized:
    return Unauthorized("wrong_credentials", "The name or the password is wrong.")


def wrong_password() -> Forbidden:
    return Forbidden("wrong_password", "The current password is wrong.")


def leaving() -> Unavailable:
    return Unavailable("leaving", "This instance is stopping: ask another one.")


def busy() -> Unavailable:
    return Unavailable("busy", "Too many users are signing in at once; try again soon.")


def json_or_form_only() -> UnsupportedMediaType:
    return UnsupportedMediaType(
        "json_or_form_only", "Send application/json or application/x-www-form-urlencoded."
    )


def user_not_found(username: str) -> NotFound:
    return NotFound("user_not_found", f"There is no user {username}.")


def deletion_not_found(username: str) -> NotFound:
    return NotFound("deletion_not_found", f"No account {username} was deleted.")


def not_yours() -> Forbidden:
    return Forbidden("not_yours", "This is for the user who is named, and for nobody else.")


def token_of_unknown_user() -> Unauthorized:
    return Unauthorized("invalid_token", "The token's user does not exist.")


def cannot_mark_yourself(verb: str) -> BadRequest:
    return BadRequest(f"cannot_{verb}_yourself", f"You cannot {verb} yourself.")


def blocked() -> Forbidden:
    return Forbidden("blocked", "One of you has blocked the other.")


def too_many_followees() -> Conflict:
    return Conflict("too_many_followees", f"A user follows at most {MAX_FOLLOWEES} others.")


def too_many_marks(verb: str) -> Conflict:
    return Conflict(f"too_many_{verb}s", f"You can {verb} at most {MAX_MARKS} others.")


def unknown_cursor(detail: str) -> BadRequest:
    return BadRequest("unknown_cursor", detail)
