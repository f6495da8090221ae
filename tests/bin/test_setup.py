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

pytestmark = pytest.mark.installs

SETUP = Path(__file__).parent.parent.parent / "bin" / "setup"
UV = Path(sys.prefix) / "bin" / "uv"
FAILING = "#!/bin/sh\nexit 1\n"
PYTHON = f'#!/bin/sh\nexec "{sys.base_prefix}/bin/python3" "$@"\n'
SERVERS = ["postgres", "redis-server", "beanstalkd", "curl"]
# Outside of the lock files: what Python puts into every virtual environment.
SEEDS = {"pip", "setuptools"}


class Project:
    """A folder with a bin/setup, and a machine around it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin").mkdir()
        (root / "bin" / "setup").write_bytes(SETUP.read_bytes())
        programs = dict.fromkeys([*SERVERS, "python3", "uv", "apt-get", "sudo"], FAILING)
        for name, script in (programs | {"python3.11": PYTHON}).items():
            (root / name).write_text(script)
            (root / name).chmod(0o755)

    def set_up(
        self, index_url: str, packages: str, stand_in: str, *options: str
    ) -> subprocess.CompletedProcess[str]:
        (self.root / "requirements.txt").write_text("")
        (self.root / "requirements-dev.txt").write_text(f"-r requirements.txt\n{packages}")
        (self.root / "requirements-dynamodb.txt").write_text(stand_in)
        return subprocess.run(
            ["bash", self.root / "bin" / "setup", *options],
            env=self._environment(index_url),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def _environment(self, index_url: str) -> dict[str, str]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))
        }
        return inherited | {
            "HOME": str(self.root),
            "PATH": f"{self.root}:/usr/bin:/bin",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index_url,
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
def uv(index: PackageIndex) -> str:
    return index.add("uv", "1.0", program=UV.read_bytes())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One for all tests: what was installed before makes no difference."""
    return Project(tmp_path_factory.mktemp("project"))


def test_what_is_locked_is_installed_and_nothing_else(index: PackageIndex, uv: str, project: Project) -> None:
    whale = index.add("whale", "1.0", "Requires-Dist: krill[salty]", "Requires-Dist: ship")
    krill = index.add("krill", "1.0", "Provides-Extra: salty", "Requires-Dist: salt; extra == 'salty'")
    salt = index.add("salt", "1.0")
    stand_in = index.add("ministack", "1.0", "Requires-Dist: salt")
    for name in ("whale", "krill", "salt", "uv", "ministack"):
        index.add(name, "2.0")

    done = project.set_up(index.url, krill + salt + uv + whale, stand_in + salt)

    assert done.returncode == 0, done.stderr
    assert project.installed(".venv") == dict.fromkeys(["whale", "krill", "salt", "uv"], "1.0")
    assert project.installed(".venv/ministack") == dict.fromkeys(["ministack", "salt"], "1.0")


def test_programs_that_check_are_installed_apart_where_they_are_asked_for(
    index: PackageIndex, uv: str, project: Project
) -> None:
    stand_in = index.add("ministack", "1.0")
    (project.root / "requirements-tools.txt").write_text(index.add("ruff", "1.0", program=b"#!/bin/sh\n"))

    without = project.set_up(index.url, uv, stand_in)
    exists_without = (project.root / ".venv" / "tools").exists()
    done = project.set_up(index.url, uv, stand_in, "--tools")

    assert [without.returncode, done.returncode] == [0, 0], without.stderr + done.stderr
    assert not exists_without
    assert project.installed(".venv") == {"uv": "1.0"}
    assert project.installed(".venv/tools") == {"ruff": "1.0"}
    assert (project.root / ".venv" / "bin" / "ruff").read_text() == "#!/bin/sh\n"


def test_what_is_no_longer_locked_goes(index: PackageIndex, uv: str, project: Project) -> None:
    barnacle = index.add("barnacle", "1.0")

    before = project.set_up(index.url, uv + barnacle, barnacle)
    after = project.set_up(index.url, uv, barnacle)

    assert [before.returncode, after.returncode] == [0, 0], before.stderr + after.stderr
    assert project.installed(".venv") == {"uv": "1.0"}


def test_a_file_that_is_not_the_locked_one_is_refused(index: PackageIndex, uv: str, project: Project) -> None:
    locked = index.add("squid", "1.0")
    index.add("squid", "1.0", "Summary: another")

    done = project.set_up(index.url, uv + locked, "")

    assert done.returncode == 1
    assert "Hash mismatch for `squid==1.0`" in done.stderr


def test_without_a_network_it_says_so_in_one_line(index: PackageIndex, uv: str, project: Project) -> None:
    done = project.set_up("http://127.0.0.1:1/simple", uv + index.add("plankton", "1.0"), "")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "setup: no network: Connection refused"
    assert all(line.startswith("setup: ") for line in done.stderr.splitlines())
