"""Prometheus' text format, as far as the status page needs it.

prometheus-client's parser takes ten times as long: docs/decisions/0031-the-status-page.md.
"""

import re
from collections.abc import Iterator

LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r"\\(.)")

Labels = dict[str, str]


def samples(text: str, names: tuple[str, ...]) -> Iterator[tuple[str, Labels, float]]:
    """Name, labels and value of each sample whose name begins with one of `names`. Raises ValueError."""
    for line in text.splitlines():
        if line.startswith(names):
            series, _, value = line.rpartition(" ")
            name, _, labels = series.partition("{")
            yield name, {label: _unescaped(text) for label, text in LABEL.findall(labels)}, float(value)


def _unescaped(text: str) -> str:
    return ESCAPE.sub(lambda found: "\n" if found[1] == "n" else found[1], text) if "\\" in text else text
