"""Response headers, as API documents describe them."""

from typing import Any

Headers = dict[str, dict[str, Any]]


def header(name: str, description: str) -> Headers:
    """One header, whose value is text."""
    return {name: {"description": description, "schema": {"type": "string"}}}


LINK = header("Link", 'The next page (RFC 8288, `rel="next"`); absent on the last one.')
LINKS = header(
    "Link",
    'The neighbouring pages (RFC 8288): `rel="next"` while there are older items, `rel="prev"` on every page '
    "with items.",
)
LOCATION = header("Location", "The path of what was created.")
ETAG = header("ETag", "The version of this list, for `If-None-Match` (RFC 9110, §8.8.3).")
RETRY_AFTER = header("Retry-After", "Seconds to wait before the next attempt.")
NO_STORE = header("Cache-Control", "`no-store`: caches must not keep a token (RFC 6749, §5.1).")

# The headers of errors, by status.
ERROR_HEADERS: dict[int, Headers] = {
    401: header("WWW-Authenticate", "The kind of token that is required (RFC 6750)."),
    429: RETRY_AFTER
    | header("RateLimit", "The requests left, and the seconds until there are more.")
    | header("RateLimit-Policy", "The requests allowed, and in how many seconds."),
    503: RETRY_AFTER,
}
