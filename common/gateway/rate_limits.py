"""How much a client may ask for: token buckets, in memory or in a Redis that several gateways share."""

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from secrets import randbits
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import parse_qsl

from pydantic import TypeAdapter
from throttled.asyncio import Quota, RateLimiterType, RateLimitResult, Throttled
from throttled.asyncio.store import BaseStore, MemoryStore, RedisStore
from throttled.exceptions import StoreUnavailableError

from common.errors import TooManyRequests, Unauthorized
from common.fields import Username
from common.tokens import Tokens

logger = logging.getLogger(__name__)

# Clients that are remembered; the one heard of longest ago is forgotten first.
CLIENTS = 100_000
REDIS_SECONDS = 0.2
# After that long a Redis that was away is tried again.
REDIS_PAUSE_SECONDS = 5.0
ACQUAINTANCE_SECONDS = 30 * 24 * 3600

USERNAME: TypeAdapter[str] = TypeAdapter(Username)

Value = TypeVar("Value")


@dataclass(frozen=True)
class Policy:
    """A limit for some paths. Each client has a bucket of its own in it.

    With `by_address`, for what makes or takes accounts, a client is an address
    whoever has signed in there, and is acquainted with the accounts that it has.
    """

    name: str
    quota: Quota
    by_address: bool = False


@dataclass(frozen=True, kw_only=True)
class SignInPolicy(Policy):
    """A limit for signing in, which bounds the guesses at an account as well, whoever makes them.

    Strangers share one bucket for each account. Who has signed in from an
    address before has a bucket there, which each success makes full again: so
    nobody can be kept out by others who guess at their password.
    """

    guesses: Quota
    by_address: bool = True


class Asking(Protocol):
    """What has to be known of a request to count it."""

    @property
    def client(self) -> str: ...
    @property
    def bearer(self) -> bytes | None: ...
    @property
    def content_type(self) -> bytes: ...
    @property
    def held_body(self) -> bytes: ...


class Limiter:
    """Counts requests. A Redis that is away is done without: then each gateway counts for itself."""

    def __init__(self, policies: Sequence[Policy], tokens: Tokens, redis_url: str | None = None) -> None:
        self._tokens = tokens
        self._local = _Buckets(policies, _memory(), _memory(), _memory())
        self._shared = _Buckets(policies, *[_redis(redis_url)] * 3) if redis_url else None
        self._shared_from = 0.0

    async def admit(self, policy: Policy, asking: Asking) -> None:
        """Raises TooManyRequests when the client's bucket, or that of the account it names, is empty."""
        subject = None if policy.by_address else _subject(self._tokens, asking.bearer)
        who = subject or _network(asking.client)
        _require(policy, await self._counted(lambda buckets: buckets.spend(policy.name, who)))
        if isinstance(policy, SignInPolicy) and (account := _account(asking)):
            acquaintance = f"{account} {_network(asking.client)}"
            _require(
                policy, await self._counted(lambda buckets: buckets.guess(policy.name, account, acquaintance))
            )

    async def succeeded(self, policy: Policy, asking: Asking) -> None:
        """Know who has signed in, or registered, again: as one who has the right password."""
        if policy.by_address and (account := _account(asking)):
            acquaintance = f"{account} {_network(asking.client)}"
            await self._counted(lambda buckets: buckets.acquaint(acquaintance))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._shared:
            await self._shared.close()

    async def _counted(self, count: "Callable[[_Buckets], Awaitable[Value]]") -> Value:
        if self._shared and time.monotonic() >= self._shared_from:
            try:
                return await asyncio.wait_for(count(self._shared), REDIS_SECONDS)
            except (StoreUnavailableError, TimeoutError) as exc:
                self._shared_from = time.monotonic() + REDIS_PAUSE_SECONDS
                logger.warning("each gateway counts for itself: %r", exc)
        return await count(self._local)


class _Buckets:
    """All the buckets. GCRA is a token bucket stored as the time when it will be full.

    Where memory is short, many clients may not make anybody forget the guesses, nor the acquaintances.
    """

    def __init__(
        self, policies: Sequence[Policy], clients: BaseStore, guesses: BaseStore, acquaintances: BaseStore
    ) -> None:
        self._acquaintances = acquaintances
        self._clients = {policy.name: _bucket(policy.name, policy.quota, clients) for policy in policies}
        self._guesses = {
            policy.name: _bucket(f"{policy.name}-guesses", policy.guesses, guesses)
            for policy in policies
            if isinstance(policy, SignInPolicy)
        }

    async def spend(self, policy: str, who: str) -> RateLimitResult:
        return await self._clients[policy].limit(who)

    async def guess(self, policy: str, account: str, acquaintance: str) -> RateLimitResult:
        era = await self._acquaintances.get(f"microblog-acquaintance {acquaintance}")
        return await self._guesses[policy].limit(f"{acquaintance} {era}" if era else account)

    async def close(self) -> None:
        # throttled-py itself has no way to: hence the underscore, and a type that it does not tell.
        await self._acquaintances._backend.get_client().aclose(close_connection_pool=True)  # type: ignore[attr-defined]  # noqa: SLF001

    async def acquaint(self, acquaintance: str) -> None:
        """A new era, and with it a bucket that is full."""
        era = randbits(32)
        await self._acquaintances.set(f"microblog-acquaintance {acquaintance}", era, ACQUAINTANCE_SECONDS)


def _bucket(name: str, quota: Quota, store: BaseStore) -> Throttled:
    return Throttled(
        using=RateLimiterType.GCRA.value, quota=quota, store=store, key_prefix=f"microblog-{name}"
    )


def _memory() -> MemoryStore:
    return MemoryStore(options={"MAX_SIZE": CLIENTS})


def _redis(url: str) -> RedisStore:
    return RedisStore(url, {"SOCKET_TIMEOUT": REDIS_SECONDS, "SOCKET_CONNECT_TIMEOUT": REDIS_SECONDS})


def _require(policy: Policy, result: RateLimitResult) -> None:
    if not result.limited:
        return
    state = result.state
    # draft-ietf-httpapi-ratelimit-headers: what is allowed in how many seconds, and what is left of it.
    headers = {
        "Retry-After": str(max(1, math.ceil(state.retry_after))),
        "RateLimit-Policy": f'"{policy.name}";q={state.limit};w={math.ceil(state.reset_after) or 1}',
        "RateLimit": f'"{policy.name}";r={state.remaining};t={max(1, math.ceil(state.retry_after))}',
    }
    raise TooManyRequests(
        "too_many_requests", "That is more than one client may ask for; try later.", headers
    )


def _subject(tokens: Tokens, token: bytes | None) -> str | None:
    try:
        return tokens.subject(token.decode("latin-1")) if token else None
    except Unauthorized:
        return None


@lru_cache(10_000)
def _network(address: str) -> str:
    """Who is counted as one: an IPv4 address, or the /64 of an IPv6 one, which is what one customer has."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or ip_network((ip, 64), strict=False))
    return address


def _account(asking: Asking) -> str | None:
    """The username in a body that signs in, be it JSON or a form; None if there can be none of that name."""
    is_form = asking.content_type.lower().startswith(b"application/x-www-form-urlencoded")
    try:
        fields: Any = _form(asking.held_body) if is_form else json.loads(asking.held_body)
        return USERNAME.validate_python(fields.get("username"))
    except (ValueError, RecursionError, AttributeError):  # a ValidationError is a ValueError
        return None


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
