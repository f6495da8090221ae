"""Headers of answers, as API documents tell of them."""

from typing import Any

Described = dict[str, dict[str, Any]]


def described(name: str, description: str) -> Described:
    """One header, whose value is text."""
    return {name: {"description": description, "schema": {"type": "string"}}}


LINK = described("Link", 'The next page (RFC 8288, `rel="next"`); absent on the last one.')
LOCATION = described("Location", "Where to find what was made.")
ETAG = described("ETag", "Of this state; send it in `If-None-Match` (RFC 9110, §8.8.3).")
RETRY_AFTER = described("Retry-After", "In how many seconds to try again.")
NO_STORE = described("Cache-Control", "`no-store`: it is for you alone (RFC 6749, §5.1).")

# What errors bear besides, by status.
OF_ERRORS: dict[int, Described] = {
    401: described("WWW-Authenticate", "What kind of token it takes (RFC 6750)."),
    429: RETRY_AFTER
    | described("RateLimit", "What is left, and in how many seconds there is more.")
    | described("RateLimit-Policy", "How many requests in how many seconds."),
    503: RETRY_AFTER,
}
