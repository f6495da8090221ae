"""Prints docs/metrics.md: .venv/bin/python bin/metrics_table.py >docs/metrics.md"""

import sys
from pathlib import Path
from textwrap import fill

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.telemetry.instruments import Instrument
from common.telemetry.metrics import INSTRUMENTS

WIDTH = 118

HEAD = """\
# What is measured

`GET /metrics` of every service and worker has it in Prometheus' text format. A metric is there as soon as its
process has recorded it. `process_…` and `python_gc_…` are prometheus-client's. This page is printed by
`bin/metrics_table.py`.

"""


def page() -> str:
    """The page, in the order in which the instruments are defined."""
    return HEAD + "".join(map(_entry, INSTRUMENTS))


def _entry(one: Instrument) -> str:
    labels = ", ".join(f"`{label}`" for label in one.labels)
    text = f"`{one.name}` ({one.kind}{' of ' if labels else ''}{labels}): {one.meaning}"
    return fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
