"""What a benchmark says: how far it is, and its table."""

import sys
from collections.abc import Sequence
from statistics import median


def progress(done: int, of: int, what: str) -> None:
    """One line on a terminal, written over and over."""
    if sys.stderr.isatty():
        end = "\n" if done == of else ""
        print(f"\r\033[K[{done}/{of}] {what}", end=end, file=sys.stderr, flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table, aligned for people."""
    lines = [list(map(_cell, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
    return str(value)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' ratios: what disturbs a round disturbs both its halves."""
    return median(our / their for our, their in zip(ours, theirs, strict=True))
