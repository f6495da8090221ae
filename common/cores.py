"""How many cores this process may use: also fewer than the machine has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available(root: Path = Path("/")) -> int:
    """The least of the machine's cores, the process's affinity and its cgroups' CPU limits, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *(math.ceil(limit) for limit in _limits(root))])


def _limits(root: Path) -> Iterator[float]:
    """The limits, in cores, of the process's cgroups and of those around them: cgroups(7), version 1 or 2."""
    for folder in _cgroups(root):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        # Without a limit, the quota is "max" or -1.
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)


def _cgroups(root: Path) -> Iterator[Path]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        # A container may see its own cgroup as the mount itself, and its path as the host names it.
        own = mount / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(mount))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
