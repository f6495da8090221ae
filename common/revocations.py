"""Tokens that are refused before they expire: a small list, which each process that verifies tokens holds."""

import logging
import time
from operator import attrgetter

from pydantic import BaseModel, ConfigDict

logger = logging.getLogger(__name__)

# Some 30 MB. The users service revokes few tokens of one user each, so that it takes many users to get there.
MAX_REVOCATIONS = 100_000


class Revocation(BaseModel):
    """One token by its `jti`, or all tokens of a user of an earlier generation; `expires_at` is Unix time."""

    model_config = ConfigDict(frozen=True)

    position: int
    username: str
    jti: str | None
    generation: int
    expires_at: int


class RevocationChanges(BaseModel):
    """What was revoked after some position, and the position after that."""

    position: int
    revocations: list[Revocation]


class Revocations:
    """What is revoked now. One thread changes it, any number may read."""

    def __init__(self) -> None:
        self.position = 0
        self._tokens: dict[str, Revocation] = {}
        self._generations: dict[str, Revocation] = {}

    def include(self, username: str, jti: str, generation: int) -> bool:
        """Whether a token with these claims is refused."""
        if jti in self._tokens:
            return True
        revocation = self._generations.get(username)
        return revocation is not None and generation < revocation.generation

    def since(self, position: int) -> list[Revocation]:
        """Those after a position, in the order of positions; of a user's generations only the last."""
        # Read first: of a change that another thread makes meanwhile, this may see a part.
        last = self.position
        held = (*self._tokens.values(), *self._generations.values())
        new = (one for one in held if position < one.position <= last)
        return sorted(new, key=attrgetter("position"))

    def update(self, changes: RevocationChanges) -> None:
        """Add these; leave out what has expired."""
        self._tokens = _latest({**self._tokens, **{one.jti: one for one in changes.revocations if one.jti}})
        users = {one.username: one for one in changes.revocations if one.jti is None}
        self._generations = _latest({**self._generations, **users})
        self.position = changes.position


def _latest(revocations: dict[str, Revocation]) -> dict[str, Revocation]:
    """Those that have not expired; if there are too many, those that expire last."""
    now = time.time()
    current = {key: one for key, one in revocations.items() if one.expires_at > now}
    if len(current) <= MAX_REVOCATIONS:
        return current
    logger.warning("more than %d revocations: those that expire first are forgotten", MAX_REVOCATIONS)
    by_expiry = sorted(current.items(), key=lambda item: item[1].expires_at)
    return dict(by_expiry[-MAX_REVOCATIONS:])
