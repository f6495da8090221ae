"""Times put together of those that the indexes of words have."""

from uuid import UUID

import pytest

from timelines_service.word_indexes import SHORTEST_TIME, times

POST = UUID("019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e").int


def test_one_id_is_in_one_time() -> None:
    assert times(POST, POST + 1) == ["019eb2a4"]


def test_sixteen_times_are_one_that_is_longer() -> None:
    assert times(POST, POST + 44 * SHORTEST_TIME) == [
        *(f"019eb2a{digit}" for digit in "456789abcdef"),
        "019eb2b",
        "019eb2c",
        "019eb2d0",
    ]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 300, 70_000, 10_000_000])
@pytest.mark.parametrize("start", [0, 1, 11, 12, 255, 4096])
def test_times_have_each_id_once(start: int, length: int) -> None:
    low = POST + start * SHORTEST_TIME
    parts = sorted(
        (int(name, 16) << 4 * (8 - len(name)), 16 ** (8 - len(name)))
        for name in times(low, low + length * SHORTEST_TIME)
    )
    ends = [first + count for first, count in parts]

    assert [first for first, _ in parts] == [low // SHORTEST_TIME, *ends[:-1]]
    assert ends[-1] == (low // SHORTEST_TIME) + length + 1
    assert len(parts) < 300
