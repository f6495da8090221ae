"""docs/metrics.md against the instruments."""

from pathlib import Path

import metrics_table


def test_the_page_of_metrics_is_that_of_the_instruments() -> None:
    page = (Path(__file__).parent.parent.parent / "docs/metrics.md").read_text()

    assert page == metrics_table.page(), "run: .venv/bin/python bin/metrics_table.py >docs/metrics.md"
