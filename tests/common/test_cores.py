"""A container's CPU limit, as its kernel shows it in cgroup files."""

import os
from pathlib import Path

import pytest

from common import cores

V2 = "0::/pods/one\n"
V1 = "4:memory:/pods/one\n3:cpu,cpuacct:/pods/one\n0::/\n"


@pytest.fixture(autouse=True)
def large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def _system(root: Path, cgroup: str, **files: str) -> Path:
    """A root file system in which the process is in `cgroup`; `files` are relative to /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


def test_a_limit_of_a_cgroup_counts(tmp_path: Path) -> None:
    assert cores.available(_system(tmp_path, V2, **{"pods/one/cpu.max": "200000 100000"})) == 2


def test_a_part_of_a_core_is_one(tmp_path: Path) -> None:
    assert cores.available(_system(tmp_path, V2, **{"pods/one/cpu.max": "10000 100000"})) == 1


def test_a_fraction_is_rounded_up(tmp_path: Path) -> None:
    assert cores.available(_system(tmp_path, V2, **{"pods/one/cpu.max": "250000 100000"})) == 3


def test_the_least_limit_of_nested_cgroups_counts(tmp_path: Path) -> None:
    files = {"pods/one/cpu.max": "800000 100000", "pods/cpu.max": "400000 100000"}

    assert cores.available(_system(tmp_path, V2, **files)) == 4


def test_a_container_that_sees_only_its_own_cgroup_has_its_limit(tmp_path: Path) -> None:
    assert cores.available(_system(tmp_path, "0::/\n", **{"cpu.max": "300000 100000"})) == 3


def test_a_limit_of_the_first_version_counts(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}

    assert cores.available(_system(tmp_path, V1, **files)) == 4


@pytest.mark.parametrize(
    "files",
    [
        {"cpu.max": "max 100000"},
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        {},
    ],
)
def test_without_a_limit_all_cores_count(tmp_path: Path, files: dict[str, str]) -> None:
    assert cores.available(_system(tmp_path, V1, **files)) == 64


def test_without_cgroups_all_cores_count(tmp_path: Path) -> None:
    assert cores.available(tmp_path) == 64


def test_a_limit_above_the_machine_counts_no_more_than_its_cores(tmp_path: Path) -> None:
    assert cores.available(_system(tmp_path, V2, **{"pods/one/cpu.max": "9900000 100000"})) == 64
