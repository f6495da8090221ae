"""Hashes of passwords."""

import anyio
import pytest
from passlib.hash import argon2

from common.errors import Unavailable
from users_service import passwords as module
from users_service.passwords import NOBODYS, Passwords


@pytest.fixture
def passwords() -> Passwords:
    return Passwords()


@pytest.mark.parametrize("password", ["x" * 64, "x" * 72, "x" * 73, "x" * 128, "pässword😀"])
def test_a_password_is_right_for_its_own_hash_only(passwords: Passwords, password: str) -> None:
    async def check() -> tuple[bool, bool]:
        hashed = await passwords.hash(password)
        return await passwords.verify(password, hashed), await passwords.verify(password + "x", hashed)

    assert anyio.run(check) == (True, False)


def test_where_there_is_no_hash_no_password_is_right(passwords: Passwords) -> None:
    assert anyio.run(passwords.verify, "correct horse", None) is False


def test_nobodys_hash_costs_what_others_do(passwords: Passwords) -> None:
    assert not passwords.is_outdated(NOBODYS)


def test_a_hash_of_other_parameters_is_outdated(passwords: Passwords) -> None:
    old = argon2.using(time_cost=1, memory_cost=8192, parallelism=1).hash("correct horse")

    assert passwords.is_outdated(old)


def test_who_waits_too_long_for_a_turn_is_told_to_come_back(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.05)

    async def check() -> None:
        for borrower in range(module.CORES):
            passwords._turns.acquire_on_behalf_of_nowait(borrower)
        await passwords.hash("correct horse")

    with pytest.raises(Unavailable):
        anyio.run(check)
