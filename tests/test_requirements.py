"""The requirements files against pyproject.toml, which bin/lock makes them of."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
FILES = {"run": "requirements.txt", "dev": "requirements-dev.txt", "bench": "requirements-bench.txt"}


@pytest.mark.parametrize("group", GROUPS)
def test_what_pyproject_asks_for_is_locked(group: str) -> None:
    locked = set(re.findall(r"^(\S+==\S+)", (ROOT / FILES[group]).read_text(), flags=re.MULTILINE))

    assert {re.sub(r"\[.*]", "", name) for name in GROUPS[group] if isinstance(name, str)} <= locked


@pytest.mark.parametrize("file", FILES.values())
def test_every_requirement_has_hashes(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    pinned = [number for number, line in enumerate(lines) if "==" in line and not line.startswith(" ")]

    assert pinned
    assert all(lines[number + 1].startswith("    --hash=sha256:") for number in pinned)
