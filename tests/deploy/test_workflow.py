"""What GitHub runs, as far as it can be read without running it."""

import re
import shlex

import pytest
import yaml

from tests.deploy.processes import ROOT

JOBS = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
COMMANDS = [shlex.split(step["run"]) for step in JOBS["image"]["steps"] if "run" in step]
COMPOSE_FILES = sorted(ROOT.glob("compose*.yaml"))

every_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)


@every_job
def test_actions_are_named_by_their_commits(job: dict[str, list[dict[str, str]]]) -> None:
    used = [step["uses"] for step in job["steps"] if "uses" in step]

    assert [action for action in used if not re.search(r"@[0-9a-f]{40}$", action)] == []


def test_the_image_that_compose_starts_is_built() -> None:
    [build] = [command for command in COMMANDS if command[1] == "build"]
    image = yaml.safe_load((ROOT / "compose.yaml").read_text())["x-process"]["image"]

    assert build[build.index("-t") + 1] == image


def test_every_compose_file_is_checked() -> None:
    checked = [command for command in COMMANDS if command[1] == "compose"]
    named = {file for command in checked for file in command if file.endswith(".yaml")}

    assert ["docker", "compose", "config", "--quiet"] in checked
    assert named == {path.name for path in COMPOSE_FILES}


def test_the_job_sets_what_compose_requires() -> None:
    required = {name for path in COMPOSE_FILES for name in re.findall(r"\$\{(\w+):\?", path.read_text())}

    assert JOBS["image"]["env"].keys() == required
