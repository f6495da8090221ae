"""The image's Dockerfile, as far as it can be read without building it."""

import re
from pathlib import Path

import pytest

from tests.deploy.processes import COMMANDS, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
RESULT = DOCKERFILE.rpartition("\nFROM ")[2]


def _copied() -> list[str]:
    """What the last stage takes from this folder."""
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", RESULT, flags=re.MULTILINE)
    return [name for line in lines for name in line.split()]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_image_has_what_each_process_of_the_procfile_starts(command: list[str]) -> None:
    started = command[1] if command[1] != "-m" else command[2].partition(".")[0]

    assert started in _copied()


def test_the_build_sees_what_the_image_takes_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    seen = {path.name for line in lines if line.startswith("!") for path in ROOT.glob(line[1:])}

    assert "*" in lines
    assert {Path(name).name for name in _copied()} <= seen
    assert seen - {Path(name).name for name in _copied()} == {"requirements.txt", "requirements-dynamodb.txt"}


def test_packages_are_those_of_the_lock_file_by_their_hashes() -> None:
    install = re.search(r"pip install (?:.*\\\n)*.*", DOCKERFILE)[0]

    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(install.split())
    assert "requirements.txt" in install


def test_pip_is_not_in_the_image() -> None:
    assert "pip uninstall --yes" in DOCKERFILE
    assert "site-packages/pip*" in RESULT


def test_the_user_is_a_number_and_not_root() -> None:
    user, group = re.search(r"^USER (\d+):(\d+)$", RESULT, flags=re.MULTILINE).groups()

    assert int(user) > 0
    assert int(group) > 0


def test_no_frontend_is_fetched_to_read_the_dockerfile() -> None:
    assert "syntax=" not in DOCKERFILE


def test_it_ends_by_the_signal_that_drains() -> None:
    assert "\nSTOPSIGNAL SIGTERM\n" in RESULT
