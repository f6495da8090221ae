"""The systemd units against the Procfile, and as systemd itself reads them."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.processes import COMMANDS, ROOT

FOLDER = ROOT / "deploy/systemd"
INTERPRETER = "/opt/microblog/.venv/bin/python"
# In tenths, as systemd-analyze takes it: below 2.0 of 10 it calls a unit "OK".
MAX_EXPOSURE = "20"

processes = pytest.mark.parametrize("name", COMMANDS)
analyzed = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, for the Python that runs here."""
    folder = shutil.copytree(FOLDER, tmp_path / "units")
    for unit in folder.glob("*.service"):
        unit.write_text(unit.read_text().replace(INTERPRETER, sys.executable))
    return folder


def _analyze(units: Path, *arguments: str) -> None:
    # The colon at the end: the units of this machine are read, too.
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:"}
    done = subprocess.run(["systemd-analyze", *arguments], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    assert str(units) not in done.stderr, done.stderr


def _unit(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(FOLDER / f"microblog-{name}.service")
    return unit


@processes
def test_every_process_of_the_procfile_is_a_unit(name: str) -> None:
    unit = _unit(name)

    assert unit["Service"]["ExecStart"] == " ".join([INTERPRETER, *COMMANDS[name][1:]])
    assert unit["Unit"]["PartOf"] == "microblog.target"


def test_a_copy_of_the_gateways_unit_may_listen_on_the_same_port() -> None:
    service = _unit("gateway")["Service"]

    assert service["User"] == "microblog-gateway", "a dynamic user is another one for each unit"
    assert service["Environment"] == "REUSE_PORT=true"


def test_the_target_starts_every_unit() -> None:
    lines = (FOLDER / "microblog.target").read_text().splitlines()
    wanted = [
        name for line in lines if line.startswith("Wants=") for name in line.removeprefix("Wants=").split()
    ]

    assert sorted(wanted) == sorted(f"microblog-{name}.service" for name in COMMANDS)


@analyzed
def test_systemd_reads_every_unit(units: Path) -> None:
    _analyze(units, "verify", *(f"{units}/microblog-{name}.service" for name in COMMANDS))


@analyzed
@processes
def test_a_unit_may_do_little(units: Path, name: str) -> None:
    _analyze(
        units, "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", f"{units}/microblog-{name}.service"
    )
