"""bin/setup in a made-up project, on a machine with an old Python first and some other uv.

The index has newer versions than the lock files, and a package asks for more than is locked: an installer
that resolves fails, or installs something else. The pip is the one that Python brings: on Debian 12, 23.0.1.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests import package_index
from tests.package_index import PackageIndex

SETUP = Path(__file__).parent.parent.parent / "bin" / "setup"
UV = Path(sys.prefix) / "bin" / "uv"
FAILING = "#!/bin/sh\nexit 1\n"
PYTHON = f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python3" "$@"\n'
SERVERS = ["postgres", "redis-server", "beanstalkd", "curl"]
# Outside of the lock files: what Python puts into every virtual environment.
SEEDS = {"pip", "setuptools"}


class Project:
    def __init__(self, root: Path, index_url: str) -> None:
        self.root = root
        self.index_url = index_url
        (root / "bin").mkdir()
        (root / "bin" / "setup").write_bytes(SETUP.read_bytes())
        programs = dict.fromkeys([*SERVERS, "python3", "uv", "apt-get", "sudo"], FAILING) | {
            "python3.11": PYTHON
        }
        for name, script in programs.items():
            (root / name).write_text(script)
            (root / name).chmod(0o755)

    def set_up(self, packages: str, stand_in: str) -> subprocess.CompletedProcess[str]:
        (self.root / "requirements.txt").write_text("")
        (self.root / "requirements-dev.txt").write_text(f"-r requirements.txt\n{packages}")
        (self.root / "requirements-dynamodb.txt").write_text(stand_in)
        return subprocess.run(
            ["bash", self.root / "bin" / "setup"],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name[:3] not in {"PIP", "UV_"}}
        return inherited | {
            "HOME": str(self.root),
            "PATH": f"{self.root}:/usr/bin:/bin",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": self.index_url,
            "NO_PROXY": "127.0.0.1",
        }

    def installed(self, environment: str) -> dict[str, str]:
        [packages] = (self.root / environment).glob("lib/python*/site-packages")
        found = distributions(path=[str(packages)])
        return {one.name: one.version for one in found if one.name not in SEEDS}


@pytest.fixture(scope="module")
def index() -> Iterator[PackageIndex]:
    with package_index.serving() as index:
        yield index


@pytest.fixture(scope="module")
def project(index: PackageIndex, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Set up once with one package more, and then as its lock files say now."""
    whale = index.add("whale", "1.0", "Requires-Dist: krill[salty]", "Requires-Dist: ship")
    krill = index.add("krill", "1.0", "Provides-Extra: salty", "Requires-Dist: salt; extra == 'salty'")
    salt, uv = index.add("salt", "1.0"), index.add("uv", "1.0", program=UV.read_bytes())
    stand_in = index.add("ministack", "1.0", "Requires-Dist: salt") + salt
    for name in ("whale", "krill", "salt", "uv", "ministack"):
        index.add(name, "2.0")
    barnacle = index.add("barnacle", "1.0")
    locked = krill + salt + uv + whale
    project = Project(tmp_path_factory.mktemp("project"), index.url)
    for packages in (barnacle + locked, locked):
        done = project.set_up(packages, stand_in)
        assert done.returncode == 0, done.stderr
    return project


def test_every_package_is_installed_as_locked_and_no_other(project: Project) -> None:
    assert project.installed(".venv") == dict.fromkeys(["whale", "krill", "salt", "uv"], "1.0")


def test_the_stand_in_for_dynamodb_is_installed_as_locked(project: Project) -> None:
    assert project.installed(".venv/ministack") == dict.fromkeys(["ministack", "salt"], "1.0")


def test_without_a_network_it_says_so_in_one_line(tmp_path: Path, index: PackageIndex) -> None:
    closed = Project(tmp_path, "http://127.0.0.1:1/simple")

    done = closed.set_up(index.add("uv", "1.0"), index.add("ministack", "1.0"))

    [_, reason] = done.stderr.splitlines()
    assert done.returncode == 1
    assert reason.startswith("setup: no network: ")
