"""Token buckets in the memory of this process."""

import time
from collections import OrderedDict
from collections.abc import Callable

from throttled import Quota, RateLimitState

# When there are more, the client that called longest ago is forgotten.
MAX_TRACKED_CLIENTS = 100_000


class TokenBuckets:
    """The buckets of one quota, a key each.

    A bucket is the time when it will be full, as throttled-py's GCRA has it,
    which counts the same in Redis. Why not its own store in memory:
    docs/decisions/0024-what-limits-and-log-cost.md.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = quota.burst
        self._token_seconds = quota.emission_interval
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str) -> RateLimitState | None:
        """Take a token of this bucket; when there is none, how the bucket is."""
        now = self._clock()
        full_at = max(self._full_at.get(key, now), now)
        seconds_until_token = full_at - now - (self._size - 1) * self._token_seconds
        is_empty = seconds_until_token > 0
        self._full_at[key] = full_at if is_empty else full_at + self._token_seconds
        self._full_at.move_to_end(key)
        if len(self._full_at) > MAX_TRACKED_CLIENTS:
            self._full_at.popitem(last=False)
        return RateLimitState(self._size, 0, full_at - now, seconds_until_token) if is_empty else None
