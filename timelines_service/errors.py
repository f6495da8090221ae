"""How the timelines service refuses a request."""

from common.errors import (
    RETRY_SECONDS,
    BadRequest,
    Conflict,
    FieldError,
    Forbidden,
    NotFound,
    TooManyRequests,
    Unavailable,
    Unprocessable,
)


def post_not_found() -> NotFound:
    return NotFound("post_not_found", "There is no such post.")


def notification_not_found() -> NotFound:
    return NotFound("notification_not_found", "You have no such notification.")


def poll_not_found() -> NotFound:
    return NotFound("poll_not_found", "There is no such poll.")


def not_your_poll() -> Forbidden:
    return Forbidden("not_your_poll", "This poll is somebody else's.")


def poll_in_use() -> Conflict:
    return Conflict("poll_in_use", "This poll is in another post already.")


def user_not_found(username: str) -> NotFound:
    return NotFound("user_not_found", f"There is no user {username}.")


def not_yours() -> Forbidden:
    return Forbidden("not_yours", "A home timeline is for its owner only.")


def not_your_post() -> Forbidden:
    return Forbidden("not_your_post", "This post is somebody else's.")


def blocked() -> Forbidden:
    return Forbidden("blocked", "One of you has blocked the other.")


def repost_has_no_text() -> BadRequest:
    return BadRequest("repost_has_no_text", "A repost shows the original's text, and has none of its own.")


def too_many_pins() -> Conflict:
    return Conflict("too_many_pins", "You have pinned five posts already; unpin one first.")


def idempotency_key_reused() -> Unprocessable:
    code, detail = "idempotency_key_reused", "This key was used for another post."
    error = FieldError(location="header", pointer="#/idempotency-key", code=code, detail=detail)
    return Unprocessable(code, detail, [error])


def too_many_streams() -> TooManyRequests:
    detail = "You have as many streams as one user may have."
    return TooManyRequests("too_many_streams", detail, {"Retry-After": str(RETRY_SECONDS)})


def no_room_for_streams() -> Unavailable:
    return Unavailable("no_room_for_streams", "This instance has as many streams as it may have.")


def leaving() -> Unavailable:
    return Unavailable("leaving", "This instance is stopping: ask another one.")
