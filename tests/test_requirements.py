"""The requirements files against pyproject.toml, which bin/lock makes them of."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
FILES = {group: f"requirements-{group}.txt" for group in GROUPS} | {"run": "requirements.txt"}
PREFIX = Path(sys.prefix)


@pytest.mark.parametrize("group", GROUPS)
def test_what_pyproject_asks_for_is_locked(group: str) -> None:
    locked = set(re.findall(r"^(\S+==\S+)", (ROOT / FILES[group]).read_text(), flags=re.MULTILINE))

    missing = {name for name in GROUPS[group] if isinstance(name, str)} - locked
    assert not missing, f"run bin/lock: {FILES[group]} lacks {sorted(missing)} of pyproject.toml"


@pytest.mark.parametrize("file", FILES.values())
def test_every_requirement_has_hashes(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    pinned = [number for number, line in enumerate(lines) if "==" in line and not line.startswith(" ")]

    assert pinned
    assert all(lines[number + 1].startswith("    --hash=sha256:") for number in pinned)


@pytest.mark.parametrize("environment", [PREFIX, PREFIX / "tools", PREFIX / "ministack"])
def test_what_is_locked_lacks_nothing_that_it_needs(environment: Path) -> None:
    command = [PREFIX / "bin" / "uv", "pip", "check", "--python", environment / "bin" / "python"]
    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
