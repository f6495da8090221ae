"""What takes more than the store: accounts, their passwords, and the tokens for them."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from anyio import to_thread

from common.telemetry import metrics
from common.tokens import Claims, Tokens
from users_service import errors
from users_service.models import AccessToken, Credentials, NewUser, OwnProfile
from users_service.passwords import Passwords
from users_service.store import UsersStore

OnRevocation = Callable[[], Awaitable[None]]


class Accounts:
    """Registers users, signs them in and out. Hashing never blocks the event loop, nor does the store."""

    def __init__(
        self, store: UsersStore, passwords: Passwords, tokens: Tokens, on_revocation: OnRevocation
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._on_revocation = on_revocation

    async def register(self, user: NewUser) -> OwnProfile:
        """Raises Conflict, Unavailable."""
        password_hash = await self._passwords.hash(user.password)
        profile = await to_thread.run_sync(self._store.register, user, password_hash)
        metrics.accounts.add()
        return profile

    async def sign_in(self, credentials: Credentials) -> AccessToken:
        """A token for the right password. Raises Unauthorized, Unavailable."""
        hashed, generation = await to_thread.run_sync(self._store.credentials, credentials.username)
        if not await self._passwords.verify(credentials.password, hashed) or hashed is None:
            metrics.sign_ins.add("wrong")
            raise errors.wrong_credentials()
        metrics.sign_ins.add("right")
        if await self._passwords.needs_rehash(credentials.password, hashed):
            await self._rehash(credentials, hashed)
        return AccessToken(
            access_token=self._tokens.issue(credentials.username, generation),
            expires_in=int(self._tokens.expires.total_seconds()),
        )

    async def sign_out(self, token: Claims) -> None:
        """Revoke this token. Raises Unavailable."""
        left = timedelta(seconds=token.exp - time.time())
        revoke = self._store.revocations.revoke_token
        await to_thread.run_sync(revoke, token.sub, token.jti, left, self._tokens.expires)
        await self._on_revocation()

    async def change_password(self, username: str, current: str, new: str) -> None:
        """Change it and revoke all of the user's tokens. Raises Forbidden, Unavailable."""
        hashed, _ = await to_thread.run_sync(self._store.credentials, username)
        if not await self._passwords.verify(current, hashed) or hashed is None:
            raise errors.wrong_password()
        better = await self._passwords.hash(new)
        change = self._store.revocations.change_password
        if not await to_thread.run_sync(change, username, hashed, better, self._tokens.expires):
            raise errors.wrong_password()  # it has just been changed to another one
        await self._on_revocation()

    async def _rehash(self, credentials: Credentials, old: str) -> None:
        """Replace an outdated hash: only at sign-in is the password known."""
        better = await self._passwords.hash(credentials.password)
        await to_thread.run_sync(self._store.rehash, credentials.username, old, better)
