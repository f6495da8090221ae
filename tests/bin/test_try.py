"""bin/try, which runs a trial by its name."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", [[], ["no-such-trial"]])
def test_without_the_name_of_a_trial_it_lists_them(name: list[str]) -> None:
    done = subprocess.run([ROOT / "bin" / "try", *name], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert "redis-cluster" in done.stderr.splitlines()
