"""What takes more than the store: accounts, their passwords, and the tokens for them."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from anyio import to_thread

from common.telemetry import metrics
from common.tokens import Claims, Tokens, invalid_token, is_service
from users_service import errors
from users_service.models import AccessToken, Credentials, Deletion, NewUser, OwnProfile
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

    async def delete(self, username: str, password: str, token: Claims) -> Deletion:
        """End an account, for its right password: this token is good for `deletion` alone from now on.

        Raises Forbidden, Unauthorized for a user who is gone, Unavailable.
        """
        hashed, _ = await to_thread.run_sync(self._store.credentials, username)
        is_right = await self._passwords.verify(password, hashed)
        if hashed is None:
            raise errors.token_of_unknown_user()
        if not is_right:
            raise errors.wrong_password()
        begin = self._store.deletions.begin
        begun = await to_thread.run_sync(begin, username, hashed, token.jti, self._tokens.expires)
        await self._on_revocation()
        return begun or await self._begun_meanwhile(username, token)

    async def _begun_meanwhile(self, username: str, token: Claims) -> Deletion:
        """The deletion that this token has requested twice at once."""
        found = await to_thread.run_sync(self._store.deletions.find, username)
        if found is None:
            raise errors.wrong_password()  # it has just been changed to another one
        if found.last_jti != token.jti:
            raise errors.token_of_unknown_user()
        return found.deletion

    async def deletion(self, username: str, token: Claims) -> Deletion:
        """How far a deletion is, for services and for the token by which it was requested.

        Raises Unauthorized, Forbidden, NotFound, Unavailable.
        """
        found = await to_thread.run_sync(self._store.deletions.find, username)
        if found is None or found.last_jti != token.jti:
            self._require_reader(username, token, is_deleted=found is not None)
        if found is None:
            raise errors.deletion_not_found(username)
        return found.deletion

    def _require_reader(self, username: str, token: Claims, *, is_deleted: bool) -> None:
        if self._tokens.is_revoked(token):
            raise invalid_token()
        if not is_service(token.sub) and (is_deleted or token.sub != username):
            raise errors.not_yours()

    async def _rehash(self, credentials: Credentials, old: str) -> None:
        """Replace an outdated hash: only at sign-in is the password known."""
        better = await self._passwords.hash(credentials.password)
        await to_thread.run_sync(self._store.rehash, credentials.username, old, better)
