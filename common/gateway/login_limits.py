"""How many passwords may be tried for one account."""

import json
from http import HTTPStatus
from secrets import randbits
from typing import Any
from urllib.parse import parse_qsl

from pydantic import TypeAdapter, ValidationError
from starlette.types import Message, Send
from throttled import Quota

from common.fields import Username
from common.gateway.forwarded_request import ForwardedRequest
from common.gateway.rate_limits import Buckets, Policy, SharedRedis, memory, network, raise_if_empty

KNOWN_ADDRESS_SECONDS = 30 * 24 * 3600
USERNAME: TypeAdapter[str] = TypeAdapter(Username)
# Responses of signing in, of registering, of changing a password, and of deleting an account.
SUCCESSES = {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED}


class LoginLimiter:
    """Bounds the attempts at an account, whatever addresses they come from.

    Unknown addresses share one bucket an account. An address from which the
    account has signed in has a bucket of its own, which each success makes
    full again: guesses from elsewhere cannot lock out an owner.
    """

    def __init__(self, policy: Policy, quota: Quota, shared: SharedRedis | None = None) -> None:
        self._policy = policy
        self._buckets = Buckets("login-guesses", quota, shared)
        self._known = _KnownAddresses(shared)

    async def guard(self, request: ForwardedRequest, send: Send) -> Send:
        """Count an attempt at the account that a login names; returns a `send` that notes a success.

        Raises TooManyRequests.
        """
        account = _account(request)
        if account is None:
            return send
        known_address = f"{account} {network(request.caller.address)}"
        if request.route.policy is self._policy:
            await self._count(account, known_address)

        async def send_and_record(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in SUCCESSES:
                # From now on the address is one of the account's, with a bucket that is full.
                await self._known.remember(known_address)
            await send(message)

        return send_and_record

    async def _count(self, account: str, known_address: str) -> None:
        generation = await self._known.generation(known_address)
        key = f"{known_address} {generation}" if generation else account
        raise_if_empty(self._policy.name, await self._buckets.take(key))


class _KnownAddresses:
    """The addresses from which accounts have signed in, each with the generation of its bucket."""

    def __init__(self, shared: SharedRedis | None) -> None:
        # Apart from the buckets, which many clients could fill.
        self._local = memory()
        self._redis = shared

    async def generation(self, known_address: str) -> int | None:
        key = _key(known_address)
        found = self._local.get(key)
        if (redis := self._redis) is not None:
            found = await redis.attempt(lambda: redis.store.get(key)) or found
        return int(found) if found else None

    async def remember(self, known_address: str) -> None:
        key, generation = _key(known_address), randbits(32)
        self._local.set(key, generation, KNOWN_ADDRESS_SECONDS)
        if (redis := self._redis) is not None:
            await redis.attempt(lambda: redis.store.set(key, generation, KNOWN_ADDRESS_SECONDS))


def _key(known_address: str) -> str:
    return f"microblog-acquaintance {known_address}"


def _account(request: ForwardedRequest) -> str | None:
    """The username in the path or in the body, JSON or a form; None if there can be no such account."""
    if request.route.account_segment is not None:
        return _username(request.path_segment(request.route.account_segment))
    body = request.body if isinstance(request.body, bytes) else b""
    is_form = request.content_type.lower().startswith(b"application/x-www-form-urlencoded")
    try:
        fields: Any = _form(body) if is_form else json.loads(body)
        return _username(fields.get("username"))
    except (ValueError, RecursionError, AttributeError):
        return None


def _username(value: object) -> str | None:
    try:
        return USERNAME.validate_python(value)
    except ValidationError:
        return None


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
