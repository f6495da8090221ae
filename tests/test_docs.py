"""What the documents say of files, against the files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.md"), *ROOT.glob("docs/**/*.md")])
MAX_COLUMNS = 120
# Such as `common/tokens.py` and `bin/check users`, but not what has <…> or * in it and so names several.
PATH = re.compile(r"`((?:bin|common|docs|tests|\w+_service)/[\w./-]+)(?=[ `])")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
HEADING = re.compile(r"^#+ (.*)", flags=re.MULTILINE)

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def _anchors(document: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = HEADING.findall(document.read_text())
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@documents
def test_lines_are_short(document: Path) -> None:
    lines = enumerate(document.read_text().splitlines(), start=1)
    too_long = [number for number, line in lines if len(line) > MAX_COLUMNS]

    assert not too_long, f"break these lines of {document.name} at {MAX_COLUMNS} columns: {too_long}"


@documents
def test_the_files_that_are_named_exist(document: Path) -> None:
    missing = [path for path in PATH.findall(document.read_text()) if not (ROOT / path).exists()]

    assert not missing, f"{document.name} names files that are not there (moved, or renamed?): {missing}"


@documents
def test_links_lead_somewhere(document: Path) -> None:
    for path, anchor in LINK.findall(document.read_text()):
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name} links to {path}, which is not there (moved, or renamed?)"
        has_anchor = not anchor or anchor in _anchors(target)
        assert has_anchor, f"{document.name} links to #{anchor}, but {target.name} has no such heading"
