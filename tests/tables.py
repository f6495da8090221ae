"""Tables that repeat what the code says: a failure says which rows to add, where."""

from collections.abc import Iterable


def require_rows(table: str, rows: Iterable[str], code: Iterable[str]) -> None:
    rows, code = set(rows), set(code)
    missing, obsolete = sorted(code - rows), sorted(rows - code)
    assert not missing, f"add to {table}: {', '.join(missing)}"
    assert not obsolete, f"remove from {table}, since the code has none: {', '.join(obsolete)}"
