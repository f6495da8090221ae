"""What takes more than the store: accounts, their passwords, and the tokens for them."""

from anyio import to_thread

from common.tokens import Tokens
from users_service import errors
from users_service.models import AccessToken, Credentials, NewUser, OwnProfile
from users_service.passwords import Passwords
from users_service.store import UsersStore


class Accounts:
    """Registers users and signs them in. Hashing never blocks the event loop, nor does the store."""

    def __init__(self, store: UsersStore, passwords: Passwords, tokens: Tokens) -> None:
        self._store = store
        self._passwords = passwords
        self._tokens = tokens

    async def register(self, user: NewUser) -> OwnProfile:
        """Raises Conflict, Unavailable."""
        password_hash = await self._passwords.hash(user.password)
        return await to_thread.run_sync(self._store.register, user, password_hash)

    async def sign_in(self, credentials: Credentials) -> AccessToken:
        """A token for the right password. Raises Unauthorized, Unavailable."""
        hashed = await to_thread.run_sync(self._store.password_hash, credentials.username)
        if not await self._passwords.verify(credentials.password, hashed) or hashed is None:
            raise errors.wrong_credentials()
        if self._passwords.is_outdated(hashed):
            await self._rehash(credentials, hashed)
        return AccessToken(
            access_token=self._tokens.issue(credentials.username),
            expires_in=int(self._tokens.expires.total_seconds()),
        )

    async def _rehash(self, credentials: Credentials, old: str) -> None:
        """Replace an outdated hash: only at sign-in is the password known."""
        better = await self._passwords.hash(credentials.password)
        await to_thread.run_sync(self._store.rehash, credentials.username, old, better)
