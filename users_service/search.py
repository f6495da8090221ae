"""Users found by the words of their names, in PostgreSQL.

They are in the order of the first word that begins as the first term does,
then of their names: whatever the plan is, pages fit together.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import text

from common.postgres.database import Database
from common.words import words
from users_service import errors

# No word has this character, and in the order of bytes it comes after all that words have.
LAST = "\U0010ffff"
# Users with a word of a rarer term are all looked at; more are not even counted.
RARE = 1500

COUNTS = text("""
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM user_words
            WHERE word >= term COLLATE "C" AND word < (term || :last) COLLATE "C" LIMIT :most
        ) AS found
    )
    FROM unnest(:terms) WITH ORDINALITY AS terms (term, number) ORDER BY number
""")
CURSOR = text("SELECT min(word) FROM user_words WHERE username = :name AND word >= :first AND word < :end")

# Subqueries that the planner cannot turn into joins, since it would then read all rows that have the word.
SHOWN = """
    (
        SELECT bool_and(EXISTS (
            SELECT FROM user_words
            WHERE username = found.username
              AND word >= term COLLATE "C" AND word < (term || :last) COLLATE "C"
        ))
        FROM unnest(CAST(:others AS text[])) AS term
    ) IS NOT FALSE
    AND found.username <> ALL (ARRAY(
        SELECT subject FROM blocks WHERE owner = :viewer
        UNION ALL SELECT owner FROM blocks WHERE subject = :viewer
    ))
    AND (found.word, found.username) > (:word COLLATE "C", :name)
    ORDER BY found.word, found.username LIMIT :limit
"""
MATCH = """
    SELECT min(word) FROM user_words WHERE username = {user} AND word >= :first AND word < :end
"""
# ruff: noqa: S608  what they are made of stands here
IN_ORDER = text(f"""
    SELECT found.username, found.word FROM user_words AS found
    WHERE found.word >= :first AND found.word < :end
      AND found.word = ({MATCH.format(user="found.username")})
      AND {SHOWN}
""")
OF_RARE_TERM = text(f"""
    WITH candidates AS MATERIALIZED (
        SELECT DISTINCT username FROM user_words WHERE word >= :rare AND word < :rare_end
    ), found AS MATERIALIZED (
        SELECT username, ({MATCH.format(user="candidates.username")}) AS word FROM candidates
    )
    SELECT found.username, found.word FROM found WHERE found.word IS NOT NULL AND {SHOWN}
""")


class FoundUser(NamedTuple):
    """A user, and the word by which the search has them in order."""

    username: str
    word: str


class Search:
    """Threads may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def users(
        self, query: str, viewer: str | None, limit: int, before: str | None, word: str | None = None
    ) -> list[FoundUser]:
        """Users who have, for each word of the query, a word that begins so.

        Without those who block the viewer, or whom the viewer blocks. Raises BadRequest when `before` is not
        found by the query, unless the word is given by which it was found.
        """
        terms = words(query)
        if not terms:
            return []
        first = {"first": terms[0], "end": terms[0] + LAST}
        if before is None:
            word = terms[0]
        elif word is None:
            word = self._word_of(before, first)
        values = {"others": terms[1:], "last": LAST, "viewer": viewer or "", "limit": limit, **first}
        values |= {"name": before or "", "word": word}
        rare = self._rare(terms)
        if rare is None:
            rows = self._database.rows(IN_ORDER, values)
        else:
            rows = self._database.rows(OF_RARE_TERM, values | {"rare": rare, "rare_end": rare + LAST})
        return [FoundUser(*row) for row in rows]

    def _rare(self, terms: Sequence[str]) -> str | None:
        """A term that few words begin with, if there are several to choose from."""
        if len(terms) == 1:
            return None
        counts = self._database.rows(COUNTS, {"terms": terms, "last": LAST, "most": RARE})
        (count, rarest) = min((count, term) for (count,), term in zip(counts, terms, strict=True))
        return rarest if count < RARE else None

    def _word_of(self, username: str, first: dict[str, str]) -> str:
        [(word,)] = self._database.rows(CURSOR, {"name": username, **first})
        if word is None:
            raise errors.unknown_cursor(f"{username} is not found by this query any more.")
        found: str = word
        return found
