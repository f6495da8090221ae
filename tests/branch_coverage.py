"""Branch coverage of the tests' own processes: `pytest -p tests.branch_coverage`.

SlipCover counts in the bytecode, and takes its counters away once they have counted. Before Python 3.14,
coverage.py has to trace all code, also that of libraries: the tests took half as long again.
"""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import slipcover

PACKAGES = [
    "common",
    "registry_service",
    "users_service",
    "timelines_service",
    "likes_service",
    "polls_service",
]
REQUIRED_PERCENT = 90
OMITTED = ["*/migrations/env.py"]
# Entry points run in processes of their own, and the methods of a protocol nowhere.
EXCLUDED = ["if __name__ == .__main__.:", r"^\s*\.\.\.$", r": \.\.\.$"]

Coverage = dict[str, Any]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin before the first conftest.py imports what is measured."""
    early_config.pluginmanager.register(BranchCoverage())


class BranchCoverage:
    """What one process has seen; in the one that pytest-xdist's processes report to, what all have."""

    def __init__(self) -> None:
        files = slipcover.FileMatcher([*PACKAGES, "gateway.py"], OMITTED)
        self._own = slipcover.Slipcover(branch=True, source=PACKAGES, omit=OMITTED, exclude_also=EXCLUDED)
        slipcover.ImportManager(self._own, files).__enter__()
        # Alembic loads migrations by their paths.
        slipcover.wrap_spec_from_file_location(self._own, files)
        self._others: list[Coverage] = []
        self._all: Coverage = {}

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if (output := getattr(session.config, "workeroutput", None)) is not None:
            output["coverage"] = json.dumps(self._own.get_coverage())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        if output := getattr(node, "workeroutput", None):  # else it has crashed, which fails the run
            self._others.append(json.loads(output["coverage"]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        result = yield
        if not hasattr(session.config, "workeroutput"):
            self._all = self._own.get_coverage()
            for other in self._others:
                slipcover.merge_coverage(self._all, other)
            session.testsfailed += self._percent < REQUIRED_PERCENT
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._all:  # a Ctrl-C came first
            return
        text = io.StringIO()
        slipcover.print_coverage(self._all, outfile=text, skip_covered=True)
        terminalreporter.write(text.getvalue())
        terminalreporter.write_line(f"covered: {self._percent:.1f} %, required: {REQUIRED_PERCENT} %")

    @property
    def _percent(self) -> float:
        return float(self._all["summary"]["percent_covered"])
