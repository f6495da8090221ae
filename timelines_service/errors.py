"""How the timelines service refuses a request."""

from common.errors import FieldError, Forbidden, NotFound, Unprocessable


def post_not_found() -> NotFound:
    return NotFound("post_not_found", "There is no such post.")


def user_not_found(username: str) -> NotFound:
    return NotFound("user_not_found", f"There is no user {username}.")


def not_yours() -> Forbidden:
    return Forbidden("not_yours", "A home timeline is for its owner only.")


def idempotency_key_reused() -> Unprocessable:
    code, detail = "idempotency_key_reused", "This key was used for another text."
    error = FieldError(location="header", pointer="#/idempotency-key", code=code, detail=detail)
    return Unprocessable(code, detail, [error])
