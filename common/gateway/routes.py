"""Routes: which path goes to which service, and how often."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from common.gateway.rate_limits import Policy


@dataclass(frozen=True)
class Route:
    """Where a path leads.

    Without a `policy` the default one counts. `is_sign_in`: success shows that
    the client knows the password of the account, which is in the body, or
    in this segment of the path: `account_segment`. A GET shows nothing, and has the default policy.
    `is_stream`: its response goes on for as long as the client stays.
    `honours_idempotency_key`: its POST may be sent again under the same `Idempotency-Key`.
    `path`: the template, which `matcher` sets.
    """

    service_name: str
    policy: Policy | None = None
    is_sign_in: bool = False
    account_segment: int | None = None
    honours_idempotency_key: bool = False
    is_stream: bool = False
    path: str = ""


# By the raw path and the method.
Match = Callable[[bytes, str], Route | None]
READS = {"GET", "HEAD", "OPTIONS"}


def matcher(routes: Mapping[str, Route], default_policy: Policy | None = None) -> Match:
    """From a raw path and a method to the route: all templates as one pattern; the first that fits wins."""
    numbered = [
        replace(route, path=path, policy=route.policy or default_policy) for path, route in routes.items()
    ]
    reading = [
        replace(route, policy=default_policy, is_sign_in=False) if route.is_sign_in else route
        for route in numbered
    ]
    groups = (f"({re.sub('{[a-z_]+}', '[^/]+', path)})" for path in routes)
    pattern = re.compile("|".join(groups).encode())

    def match(path: bytes, method: str) -> Route | None:
        found = pattern.fullmatch(path)
        if not found or not found.lastindex:
            return None
        return (reading if method in READS else numbered)[found.lastindex - 1]

    return match
