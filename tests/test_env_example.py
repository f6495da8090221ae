"""`.env.example` against the settings classes."""

import re
from pathlib import Path

import pytest

from tests.settings_classes import SETTINGS, VARIABLES
from tests.tables import require_rows

EXAMPLE = (Path(__file__).parent.parent / ".env.example").read_text()
LINES = re.findall(r"^#([A-Z_]+=.*)", EXAMPLE, flags=re.MULTILINE)


def test_every_variable_has_a_line() -> None:
    names = {line.partition("=")[0] for line in LINES}

    require_rows("the groups of .env.example, commented out", names, VARIABLES)


def test_nothing_is_set_as_it_is() -> None:
    set_lines = [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")]

    assert not set_lines, f"comment out in .env.example: {set_lines}"


@pytest.mark.parametrize("service", SETTINGS)
def test_its_values_are_the_defaults(service: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("\n".join(LINES))

    uncommented = SETTINGS[service](_env_file=tmp_path / "env").model_dump()
    defaults = SETTINGS[service](_env_file=None).model_dump()
    changed = {name.upper() for name, value in defaults.items() if uncommented[name] != value}
    assert not changed, f"give .env.example the default of the settings class for: {sorted(changed)}"
