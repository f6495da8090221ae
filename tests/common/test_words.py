"""The words by which people and posts are found."""

import pytest

from common.words import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Alice_B  alice", ["alice", "b", "alice"]),
        ("Łódź Ørsted", ["lodz", "orsted"]),
        ("İstanbul", ["istanbul"]),
        ("हिन्दी", ["हिनदी"]),
        ("ﬁne ①", ["fine", "1"]),
        ("x" * 60, ["x" * 50]),
        ("…", []),
        ("It's late, it IS_5.", ["it", "s", "late", "it", "is", "5"]),
        ("Ít's late, ít ÍS_5.", ["it", "s", "late", "it", "is", "5"]),
    ],
)
def test_words_are_folded(text: str, found: list[str]) -> None:
    assert words(text) == found
