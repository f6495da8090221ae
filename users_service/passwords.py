"""Password hashes: argon2id, as many at once as there are cores, and never on the event loop."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from passlib.context import CryptContext

from common import cores
from common.bulkhead import Bulkhead, BulkheadFull
from common.telemetry import metrics
from common.telemetry.instruments import Readings
from users_service import errors
from users_service.models import normalized

logger = logging.getLogger(__name__)

# OWASP's Password Storage Cheat Sheet: 19 MiB, two passes, one lane.
ARGON2ID: Mapping[str, Any] = {
    "argon2__type": "ID",
    "argon2__memory_cost": 19456,
    "argon2__time_cost": 2,
    "argon2__parallelism": 1,
}
CORES = cores.available()
HASH_WAIT_SECONDS = 1

# The hash of a random password, checked when there is no such user, so that both cases take equally long.
DUMMY_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$ob9az4g/0uSDQnZ5SC2iyw$+aW8fjwrPcHSzH4EQt1iLaX8Bb5ji/CdCAvQcPRwJfg"
)

Result = TypeVar("Result")


class Passwords:
    """Makes and checks hashes. Raises Unavailable when too many callers wait already.

    A hash is of the password's normal form; one from before that is of the form that was sent.
    """

    def __init__(self) -> None:
        # pbkdf2_sha256 only checks hashes from before argon2; see is_outdated.
        self._context = CryptContext(["argon2", "pbkdf2_sha256"], deprecated="auto", **ARGON2ID)
        # Threads of their own, because a thread keeps the memory of its last hash.
        self._threads = ThreadPoolExecutor(CORES, "passwords")
        self._bulkhead = Bulkhead(CORES, HASH_WAIT_SECONDS)
        metrics.hashing_queue.read_from(self._read_pending)

    async def hash(self, password: str) -> str:
        hashed: str = await self._run_limited(lambda: self._context.hash(normalized(password)))
        return hashed

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether the hash is the password's; False, after the same time, when there is no hash.

        A wrong password that has another normal form is hashed twice, whatever the account's hash is.
        """
        forms = dict.fromkeys((normalized(password), password))
        is_right = await self._run_limited(
            lambda: any(self._matches(form, hashed or DUMMY_HASH) for form in forms)
        )
        return is_right and hashed is not None

    def _matches(self, password: str, hashed: str) -> bool:
        try:
            return self._context.verify(password, hashed)
        except ValueError:
            # An imported account: no password is right, and the refusal takes as long as any other.
            logger.warning("there is a hash that is neither argon2 nor pbkdf2_sha256")
            self._context.verify(password, DUMMY_HASH)
            return False

    async def needs_rehash(self, password: str, hashed: str) -> bool:
        """Whether the hash of this right password is outdated, or not of its normal form."""
        normal = normalized(password)
        return self.is_outdated(hashed) or (normal != password and not await self.verify(normal, hashed))

    def is_outdated(self, hashed: str) -> bool:
        """Whether it was made in another way, or with other parameters, than today's."""
        return self._context.needs_update(hashed)

    async def _run_limited(self, work: Callable[[], Result]) -> Result:
        try:
            async with self._bulkhead:
                with metrics.hashing.time():
                    return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except BulkheadFull as exc:
            metrics.bulkhead_refusals.add("passwords")
            raise errors.busy() from exc

    def _read_pending(self) -> Readings:
        return [((), self._bulkhead.pending)]
