"""Texts and queries as PostgreSQL's full-text search takes them.

Their words are found here, not by its parser: that one depends on the locale of
the database, and takes a Thai or Hindi word apart at each mark.
"""

import re
from uuid import UUID

from common.words import words

# What each document has, and no word is; the second one with the time of its id.
EVERY, TIME = "'*'", "'*{}'"
# Of the time in an id, so many hexadecimal digits: 65 seconds.
DIGITS = 8
SHORTEST_TIME = 1 << 4 * (32 - DIGITS)
# A time is put together of at most so many shorter ones: each begins with the same digits.
MAX_TIMES = 32
# A phrase in quotes, or a word; of either, what follows a minus must not be in a document.
PIECE = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')


def document(text: str, post_id: UUID) -> str:
    """The tsvector of a post's text."""
    places = (f"{_quoted(word)}:{place}" for place, word in enumerate(words(text), 1))
    return " ".join([EVERY, TIME.format(post_id.hex[:DIGITS]), *places])


def query(sought: str) -> str | None:
    """The tsquery of what a client looks for, in the syntax of `websearch_to_tsquery`; None without words."""
    alternatives: list[list[str]] = [[]]
    for minus, phrase, word in PIECE.findall(sought):
        if not minus and word.lower() == "or":
            alternatives.append([])
        elif found := words(phrase or word):
            together = " <-> ".join(map(_quoted, found))
            alternatives[-1].append(f"!({together})" if minus else together)
    return " | ".join(map(_all_of, filter(None, alternatives))) or None


def times(low: UUID, high: UUID) -> str:
    """The tsquery of ids from one to another. It finds some of just before and just after, too."""
    digits = DIGITS
    while _number(high, digits) - _number(low, digits) >= MAX_TIMES:
        digits -= 1
    numbers = range(_number(low, digits), _number(high, digits) + 1)
    return " | ".join(TIME.format(f"{number:0{digits}x}") + ":*" for number in numbers)


def _number(post_id: UUID, digits: int) -> int:
    return post_id.int >> 4 * (32 - digits)


def _quoted(word: str) -> str:
    # A word has neither quotes nor backslashes.
    return f"'{word}'"


def _all_of(terms: list[str]) -> str:
    # Something has to be there: with nothing but exclusions, PostgreSQL would read the whole index.
    is_excluding = all(term.startswith("!") for term in terms)
    return " & ".join([EVERY, *terms] if is_excluding else terms)
