"""Routes: which path goes to which service, and how often."""

from dataclasses import dataclass

from common.gateway.rate_limits import Policy


@dataclass(frozen=True)
class Destination:
    """Where a path leads, how often a client may go there, and whether its POST honours `Idempotency-Key`."""

    service_name: str
    policy: Policy | None = None
    honours_key: bool = False
