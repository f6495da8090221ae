"""Positions in lists of names, sealed: links carry them, and clients learn nothing from them.

A position comes from a sequence that all users share. Two positions would tell
a user how many others were muted in between, and so perhaps by whom.
"""

import hmac
from hashlib import sha256

# A tag and a position, eight bytes each.
SEALED = "^[0-9a-f]{32}$"
BYTES = 8


class Seal:
    """Seals numbers below 2^64. Instances with the same secret open what one of them has sealed."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"positions in lists of names", sha256)

    def close(self, position: int, place: str) -> str:
        """The position, sealed for one place: a list and a name in it."""
        tag = self._tag(position, place)
        return f"{tag.hex()}{position ^ self._mask(tag):0{2 * BYTES}x}"

    def open(self, sealed: str, place: str) -> int | None:
        """The position; None when it was sealed for another place, or with another secret."""
        tag, hidden = bytes.fromhex(sealed[: 2 * BYTES]), int(sealed[2 * BYTES :], 16)
        position = hidden ^ self._mask(tag)
        return position if hmac.compare_digest(tag, self._tag(position, place)) else None

    def _tag(self, position: int, place: str) -> bytes:
        return self._digest(f"{position} {place}".encode())

    def _mask(self, tag: bytes) -> int:
        return int.from_bytes(self._digest(tag))

    def _digest(self, message: bytes) -> bytes:
        return hmac.digest(self._key, message, sha256)[:BYTES]
