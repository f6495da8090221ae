"""Headers of answers, as API documents tell of them."""

from typing import Any

Headers = dict[str, dict[str, Any]]


def header(name: str, description: str) -> Headers:
    """One header, whose value is text."""
    return {name: {"description": description, "schema": {"type": "string"}}}


LINK = header("Link", 'The next page (RFC 8288, `rel="next"`); absent on the last one.')
LOCATION = header("Location", "Where to find what was made.")
ETAG = header("ETag", "Of this state; send it in `If-None-Match` (RFC 9110, §8.8.3).")
RETRY_AFTER = header("Retry-After", "In how many seconds to try again.")
NO_STORE = header("Cache-Control", "`no-store`: it is for you alone (RFC 6749, §5.1).")

# What errors bear besides, by status.
ERROR_HEADERS: dict[int, Headers] = {
    401: header("WWW-Authenticate", "What kind of token it takes (RFC 6750)."),
    429: RETRY_AFTER
    | header("RateLimit", "What is left, and in how many seconds there is more.")
    | header("RateLimit-Policy", "How many requests in how many seconds."),
    503: RETRY_AFTER,
}
