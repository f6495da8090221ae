"""The passwords that attackers try first."""

from functools import cache
from pathlib import Path


def is_common(password: str) -> bool:
    """Whether this is one of the most common passwords, in any case of its letters."""
    return password.lower() in _common()


@cache
def _common() -> frozenset[str]:
    """Read when the first one is asked for."""
    lines = Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))
