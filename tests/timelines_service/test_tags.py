"""Which words of a text are hashtags."""

import time

import pytest

from timelines_service.tags import MAX_MENTIONS, MAX_TAGS, hashtags, mentions


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("#Good morning", ["good"]),
        ("a #one, (#two) #three.", ["one", "two", "three"]),
        ("#हिन्दी और #ภาษาไทย", ["हिन्दी", "ภาษาไทย"]),
        ("#日本語。#中文", ["日本語", "中文"]),
        ("#Straße #STRASSE", ["strasse"]),
        ("#\uff26\uff35\uff2c\uff2c #full", ["full"]),
        ("#e\u0301te\u0301 #été", ["été"]),
        ("#cat😺 #😺 😺#dog", ["cat", "dog"]),
        ("#\ufe0f\u20e3 is a keycap", []),
        ("#snake_case #_ #1st", ["snake_case", "_", "1st"]),
        ("#2024 #१२३", []),
        ("a#b 1#b _#b /#b &#b e\u0301#b", []),
        ("&#35; &#x23;", []),
        ("##twice -#dash", ["twice", "dash"]),
        ("https://example.com/?q=1#top and #after", ["after"]),
        ("#before,https://example.com/,#inside", ["before"]),
        ("見てhttps://example.com/a,#b、#外", ["外"]),
        ("# #! #", []),
        ("#again #Again #AGAIN", ["again"]),
        (f"#{'x' * 100} #{'y' * 101}", ["x" * 100]),
    ],
)
def test_these_are_the_tags_of_a_text(text: str, tags: list[str]) -> None:
    assert hashtags(text) == tags


def test_the_first_tags_count() -> None:
    assert hashtags(" ".join(f"#tag{number}" for number in range(50))) == [
        f"tag{number}" for number in range(MAX_TAGS)
    ]


@pytest.mark.parametrize("piece", ["#", "#a", "a.", "https://", "a://", "#\u0301", "_#"])
def test_a_long_text_takes_time_in_proportion(piece: str) -> None:
    def seconds(text: str) -> float:
        start = time.process_time()
        hashtags(text)
        return time.process_time() - start

    assert min(seconds(piece * 100_000) for _ in range(3)) < 100 * max(seconds(piece * 10_000), 0.001)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@alice, and @Bobby_1!", ["alice", "bobby_1"]),
        ("@alice @ALICE @alice", ["alice"]),
        ("(@alice) .@bobby\n@carol's 字@none", ["alice", "bobby", "carol"]),
        ("bobby@alice.example a_@alice /@alice &@alice", []),
        ("https://example.com/@alice and @bobby", ["bobby"]),
        ("@alicé @al @home @id @ @" + "x" * 31, []),
        ("#tag@alice @alice#tag @@bobby", ["alice", "bobby"]),
    ],
)
def test_these_are_mentioned(text: str, names: list[str]) -> None:
    assert mentions(text) == names


def test_the_first_mentions_count() -> None:
    assert mentions(" ".join(f"@user{number}" for number in range(50))) == [
        f"user{number}" for number in range(MAX_MENTIONS)
    ]
