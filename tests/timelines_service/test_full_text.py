"""Queries as PostgreSQL's full-text search takes them."""

from uuid import UUID

import pytest

from timelines_service.full_text import document, query

POST = UUID("019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e")


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        ("Tea", "'tea'"),
        ("black tea", "'black' & 'tea'"),
        ('"black tea"', "'black' <-> 'tea'"),
        ('"black tea', "'black' <-> 'tea'"),
        ("tea -milk", "'tea' & !('milk')"),
        ('tea -"with milk"', "'tea' & !('with' <-> 'milk')"),
        ("tea or black coffee", "'tea' | 'black' & 'coffee'"),
        ("-milk", "'*' & !('milk')"),
        ("tea OR -milk", "'tea' | '*' & !('milk')"),
        ("or tea or", "'tea'"),
        ('"or"', "'or'"),
        ("well-known", "'well' <-> 'known'"),
        ("Éclair STRASSE straße ที่นี่", "'eclair' & 'strasse' & 'strasse' & 'ทีนี'"),
        ("o'brien \\ ' & | ! :* <->", "'o' <-> 'brien'"),
    ],
)
def test_a_query_has_the_syntax_of_a_web_search(sought: str, found: str) -> None:
    assert query(sought) == found


@pytest.mark.parametrize("sought", ["", " ", "-", "--", '"', '""', "or", "- or -", "'", "\\", "&!|", "\0"])
def test_a_query_without_words_is_none(sought: str) -> None:
    assert query(sought) is None


def test_a_document_has_its_words_with_their_places() -> None:
    assert document("It's late, it IS.", POST) == "'*' '*019eb2a4' 'it':1 's':2 'late':3 'it':4 'is':5"
