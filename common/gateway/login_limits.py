"""How many passwords may be tried for one account."""

import json
from http import HTTPStatus
from secrets import randbits
from typing import Any
from urllib.parse import parse_qsl

from pydantic import TypeAdapter
from throttled.asyncio import Quota
from throttled.asyncio.store import BaseStore

from common.fields import Username
from common.gateway.forwarded_request import ForwardedRequest
from common.gateway.rate_limits import Buckets, Policy, SharedRedis, memory, network, raise_if_limited

KNOWN_ADDRESS_SECONDS = 30 * 24 * 3600
USERNAME: TypeAdapter[str] = TypeAdapter(Username)
# Responses of signing in and of registering.
SUCCESSES = {HTTPStatus.OK, HTTPStatus.CREATED}


class LoginLimiter:
    """Bounds the attempts at an account, whatever addresses they come from.

    Unknown addresses share one bucket an account. An address from which the
    account has signed in has a bucket of its own, which each success makes
    full again: so nobody can lock out an owner by guessing at the password.
    """

    def __init__(self, policy: Policy, quota: Quota, shared: SharedRedis | None = None) -> None:
        self._policy = policy
        self._buckets = Buckets("login-guesses", quota, shared)
        self._known = _KnownAddresses(shared)

    async def check(self, request: ForwardedRequest) -> None:
        """Count an attempt at the account that a login names. Raises TooManyRequests."""
        is_login = request.route.policy is self._policy
        if is_login and (account := _account(request)):
            known_address = f"{account} {network(request.caller.address)}"
            generation = await self._known.generation(known_address)
            key = f"{known_address} {generation}" if generation else account
            raise_if_limited(self._policy.name, await self._buckets.take(key))

    async def record(self, request: ForwardedRequest, status: int) -> None:
        """After a success, know the address as one of the account's, with a bucket that is full."""
        if status in SUCCESSES and (account := _account(request)):
            await self._known.remember(f"{account} {network(request.caller.address)}")


class _KnownAddresses:
    """The addresses from which accounts have signed in, each with the generation of its bucket."""

    def __init__(self, shared: SharedRedis | None) -> None:
        # Apart from the buckets, which many clients could fill.
        self._local = memory()
        self._redis = shared

    async def generation(self, known_address: str) -> int | None:
        local = await _get(self._local, known_address)
        if (redis := self._redis) is None:
            return local
        return await redis.attempt(lambda: _get(redis.store, known_address)) or local

    async def remember(self, known_address: str) -> None:
        generation = randbits(32)
        await _set(self._local, known_address, generation)
        if redis := self._redis:
            await redis.attempt(lambda: _set(redis.store, known_address, generation))


async def _get(store: BaseStore, known_address: str) -> int | None:
    generation = await store.get(f"microblog-acquaintance {known_address}")
    return int(generation) if generation else None


async def _set(store: BaseStore, known_address: str, generation: int) -> None:
    await store.set(f"microblog-acquaintance {known_address}", generation, KNOWN_ADDRESS_SECONDS)


def _account(request: ForwardedRequest) -> str | None:
    """The username in the body, be it JSON or a form; None if there can be no such account."""
    body = request.buffered_body
    is_form = request.content_type.lower().startswith(b"application/x-www-form-urlencoded")
    try:
        fields: Any = _form(body) if is_form else json.loads(body)
        return USERNAME.validate_python(fields.get("username"))
    except (ValueError, RecursionError, AttributeError):  # a ValidationError is a ValueError
        return None


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
