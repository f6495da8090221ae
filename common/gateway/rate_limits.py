"""How often a client may call: token buckets, in memory or in a Redis that several gateways share."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple, Self, TypeVar

from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from throttled import MemoryStore, Quota, RateLimiterType, RateLimitState
from throttled import asyncio as throttled_asyncio
from throttled.exceptions import StoreUnavailableError
from throttled.rate_limiter.quota_parser import parse

from common.errors import Unauthorized
from common.gateway import errors
from common.gateway.token_buckets import MAX_TRACKED_CLIENTS, TokenBuckets
from common.redis_url import ClusterUrl, connect, is_of_cluster
from common.telemetry import metrics
from common.tokens import Tokens

logger = logging.getLogger(__name__)

REDIS_SECONDS = 0.2
REDIS_RETRY_SECONDS = 5.0

Value = TypeVar("Value")


def quota(text: str) -> Quota:
    """In the words of RATE_LIMIT, such as `60/min burst 100`."""
    return parse(text)[0]


@dataclass(frozen=True)
class Policy:
    """A limit for some routes. Each client has a token bucket in it.

    A client is the user of a valid token, else an address. With `by_address`
    it is always the address: for routes that make or take accounts.
    """

    name: str
    quota: Quota
    by_address: bool = False


class Caller(NamedTuple):
    """Where a request comes from: its address, and the bearer token in it, valid or not."""

    address: str
    token: bytes | None = None


class SharedRedis:
    """The Redis in which gateways count together; not called for REDIS_RETRY_SECONDS after a failure."""

    def __init__(self, url: str) -> None:
        self._client = _connect(url)
        self.store = throttled_asyncio.RedisStore()
        # throttled-py's own options know neither sentinels' passwords nor a database there.
        self.store._backend._client = self._client  # type: ignore[assignment]  # noqa: SLF001
        self._retry_at = 0.0

    async def attempt(self, call: Callable[[], Awaitable[Value]]) -> Value | None:
        """What the call returns; None while Redis does not respond in time."""
        if time.monotonic() < self._retry_at:
            return None
        try:
            return await asyncio.wait_for(call(), REDIS_SECONDS)
        except (StoreUnavailableError, TimeoutError) as exc:
            self._retry_at = time.monotonic() + REDIS_RETRY_SECONDS
            logger.warning("each gateway counts for itself: %r", exc.__cause__ or exc)
            await self._reconnect()
            return None

    async def _reconnect(self) -> None:
        """Its name may lead to another server by then. Connections in use are replaced after their call."""
        if isinstance(self._client, RedisCluster):
            await self._client.aclose()  # it asks anew who has which slot
            return
        pool = self._client.connection_pool
        await pool.disconnect(inuse_connections=False)
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]  # redis-py's own

    async def close(self) -> None:
        if isinstance(self._client, RedisCluster):
            await self._client.aclose()
            return
        await self._client.aclose(close_connection_pool=True)
        if sentinels := getattr(self._client.connection_pool, "sentinel_manager", None):
            await sentinels.aclose()


def _connect(url: str) -> Redis | RedisCluster:
    options: dict[str, Any] = {
        "socket_timeout": REDIS_SECONDS,
        "socket_connect_timeout": REDIS_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if not is_of_cluster(url):
        return connect(Redis, Sentinel, url, **options)
    place = ClusterUrl.parse(url)
    nodes = [ClusterNode(host, port) for host, port in place.nodes]
    return RedisCluster(startup_nodes=nodes, **place.options, **options)


class Buckets:
    """The token buckets of one policy, a key each.

    This process always counts, and the shared Redis too while it responds: a
    Redis that comes and goes lets no request through that this process would refuse.
    """

    def __init__(self, name: str, quota: Quota, shared: SharedRedis | None) -> None:
        self._local = TokenBuckets(quota)
        self._redis = shared
        if shared:
            # GCRA is a token bucket stored as the time when it will be full.
            self._shared = throttled_asyncio.Throttled(
                using=RateLimiterType.GCRA.value,
                quota=quota,
                store=shared.store,
                key_prefix=f"microblog-{name}",
            ).limiter

    async def take(self, key: str) -> RateLimitState | None:
        """Take a token of this key's bucket; when there is none, how the bucket is."""
        empty = self._local.take(key)
        if self._redis is None or empty:
            return empty
        shared = await self._redis.attempt(lambda: self._shared.limit(key))
        return shared.state if shared and shared.limited else None


class Limiter:
    """Counts requests for each policy and client."""

    def __init__(self, tokens: Tokens, shared: SharedRedis | None = None) -> None:
        self._tokens = tokens
        self._shared = shared
        self._buckets: dict[str, Buckets] = {}

    async def check(self, policy: Policy, caller: Caller) -> None:
        """Take a token of the caller's bucket. Raises TooManyRequests when it is empty."""
        buckets = self._buckets.get(policy.name)
        if buckets is None:
            buckets = self._buckets[policy.name] = Buckets(policy.name, policy.quota, self._shared)
        subject = None if policy.by_address else self._subject(caller.token)
        raise_if_empty(policy.name, await buckets.take(subject or network(caller.address)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._shared:
            await self._shared.close()

    def _subject(self, token: bytes | None) -> str | None:
        try:
            return self._tokens.subject(token.decode("latin-1")) if token else None
        except Unauthorized:
            return None


def memory() -> MemoryStore:
    return MemoryStore(options={"MAX_SIZE": MAX_TRACKED_CLIENTS})


def raise_if_empty(name: str, state: RateLimitState | None) -> None:
    """Raises TooManyRequests with the headers of draft-ietf-httpapi-ratelimit-headers."""
    if state is None:
        return
    retry_after = max(1, math.ceil(state.retry_after))
    headers = {
        "Retry-After": str(retry_after),
        "RateLimit-Policy": f'"{name}";q={state.limit};w={math.ceil(state.reset_after) or 1}',
        "RateLimit": f'"{name}";r={state.remaining};t={retry_after}',
    }
    metrics.rate_limit_refusals.add(name)
    raise errors.too_many_requests(headers)


@lru_cache(10_000)
def network(address: str) -> str:
    """The client behind an address: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
    return address
