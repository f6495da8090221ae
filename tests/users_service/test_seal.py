"""What links say of positions in lists."""

import re

import pytest

from users_service.seal import SEALED, Seal

SEAL = Seal("a secret")


@pytest.mark.parametrize("position", [0, 1, 2**63 - 1])
def test_what_was_sealed_is_opened_by_an_instance_with_the_same_secret(position: int) -> None:
    sealed = SEAL.close(position, "a place")

    assert re.fullmatch(SEALED, sealed)
    assert Seal("a secret").open(sealed, "a place") == position


def test_neither_another_secret_nor_another_place_opens_it() -> None:
    sealed = SEAL.close(7, "a place")

    assert Seal("another").open(sealed, "a place") is None
    assert SEAL.open(sealed, "another") is None


@pytest.mark.parametrize("number", range(0, 32, 5))
def test_a_change_of_any_digit_spoils_it(number: int) -> None:
    sealed = SEAL.close(7, "a place")
    changed = f"{int(sealed[number], 16) ^ 1:x}"

    assert SEAL.open(sealed[:number] + changed + sealed[number + 1 :], "a place") is None


def test_positions_next_to_each_other_do_not_look_so() -> None:
    first, second = (int(SEAL.close(position, "a place")[16:], 16) for position in (7, 8))

    assert abs(first - second) > 2**32
