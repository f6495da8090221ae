"""Texts and queries as PostgreSQL's full-text search takes them.

Their words are found here, not by its parser: that one depends on the locale of
the database, and takes a Thai or Hindi word apart at each mark.
"""

import re
from uuid import UUID

from common.words import words

# What each document has, and no word is.
EVERY = "'*'"
# The time of a post's id, for instances of the last version: the index has it by itself.
TIME = "'*{}'"
# A phrase in quotes, or a word; of either, what follows a minus must not be in a document.
PIECE = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')


def document(text: str, post_id: UUID) -> str:
    """The tsvector of a post's text."""
    places = (f"{_quoted(word)}:{place}" for place, word in enumerate(words(text), 1))
    return " ".join([EVERY, TIME.format(post_id.hex[:8]), *places])


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


def _quoted(word: str) -> str:
    # A word has neither quotes nor backslashes.
    return f"'{word}'"


def _all_of(terms: list[str]) -> str:
    # Something has to be there: with nothing but exclusions, PostgreSQL would read the whole index.
    is_excluding = all(term.startswith("!") for term in terms)
    return " & ".join([EVERY, *terms] if is_excluding else terms)
