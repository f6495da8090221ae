"""Whether the request in hand may be answered from data that is a moment old."""

from contextvars import ContextVar

# False outside of requests, and for what a client may have written itself just now.
may_be_stale: ContextVar[bool] = ContextVar("may_be_stale", default=False)
