"""Hashtags and mentions in a text, of any script.

Each is a sign and letters, marks, digits and `_`. Python's `\\w` knows no marks,
which Hindi and Thai are written with; so this looks at each character once.
"""

import re
from collections.abc import Iterator
from itertools import islice
from unicodedata import category, normalize

from common.fields import RESERVED_NAMES

MAX_TAGS = 20
MAX_TAG_LENGTH = 100
MAX_MENTIONS = 20

NAME = re.compile("[A-Za-z0-9_]{3,30}")

# After a scheme. What follows belongs to the URL.
URL_BEGINS = "://"
URL_ENDS = '<>"'
# The rules of HTML's entities and of paths: `&#35;` and `/#top` are no tags.
NOT_BEFORE = "_/&"


def hashtags(text: str) -> list[str]:
    """The first tags of a text, each once, as tags are compared."""
    return list(islice(dict.fromkeys(map(normalized, filter(is_tag, _found("#", text)))), MAX_TAGS))


def mentions(text: str) -> list[str]:
    """The first names that a text mentions, each once; perhaps there are no such users."""
    return list(islice(dict.fromkeys(map(str.lower, filter(_is_name, _found("@", text)))), MAX_MENTIONS))


def normalized(tag: str) -> str:
    """The form in which tags are compared."""
    return normalize("NFKC", normalize("NFKC", tag).casefold())


def is_tag(word: str) -> bool:
    """Whether a word, without its `#`, is a tag. A mark in front would belong to the `#`, as in a keycap."""
    return (
        0 < len(word) <= MAX_TAG_LENGTH
        and all(map(_is_of_word, word))
        and category(word[0])[0] != "M"
        and not all(category(character) == "Nd" for character in word)
    )


def _is_name(word: str) -> bool:
    return bool(NAME.fullmatch(word)) and word.lower() not in RESERVED_NAMES


def _found(sign: str, text: str) -> Iterator[str]:
    """The words that follow this sign."""
    for start, end in _outside_urls(text):
        position = start
        while (position := text.find(sign, position, end)) >= 0:
            word = _word(text, position + 1)
            if _may_begin(text, position):
                yield word
            position += 1 + len(word)


def _outside_urls(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while (end := text.find(URL_BEGINS, start)) >= 0:
        yield start, end
        start = end + len(URL_BEGINS)
        while end > 0 and _is_ascii_word(text[end - 1]) and start < len(text) and not _ends_url(text[start]):
            start += 1
    yield start, len(text)


def _is_ascii_word(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _ends_url(character: str) -> bool:
    # Where words are not parted by spaces, punctuation of the script ends a URL.
    return (
        character.isspace() or character in URL_ENDS or (character > "\x7f" and category(character)[0] == "P")
    )


def _may_begin(text: str, position: int) -> bool:
    if position == 0:
        return True
    before = text[position - 1]
    return before not in NOT_BEFORE and not _is_of_word(before)


def _word(text: str, start: int) -> str:
    end = start
    while end < len(text) and _is_of_word(text[end]):
        end += 1
    return text[start:end]


def _is_of_word(character: str) -> bool:
    kind = category(character)
    return character == "_" or kind[0] in "LM" or kind == "Nd"
