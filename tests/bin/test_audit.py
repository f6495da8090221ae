"""What bin/check makes of what pip-audit says."""

import audit
import pytest

FINE = {"name": "fine", "version": "1.0", "vulns": []}
SKIPPED = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}
BROKEN = {
    "name": "broken",
    "version": "1.0",
    "vulns": [{"id": "CVE-2024-1", "fix_versions": ["1.1"]}, {"id": "CVE-2024-2", "fix_versions": []}],
}


def test_a_vulnerability_is_told_with_the_version_that_mends_it() -> None:
    assert audit.findings([FINE, SKIPPED, BROKEN]) == [
        "broken 1.0: CVE-2024-1, mended in 1.1; CVE-2024-2, mended in no version yet"
    ]


@pytest.mark.parametrize(
    ("dependencies", "names"),
    [([FINE], ""), ([FINE, SKIPPED], "unknown"), ([SKIPPED], "any package"), ([], "any package")],
)
def test_what_could_not_be_asked_about_is_named(dependencies: list[audit.Dependency], names: str) -> None:
    assert audit.unchecked(dependencies) == names
