"""Faults at random for as long as you like: `bin/soak [minutes]`. The last line has the figures.

With `--cluster`, what may be lost is there twice, stores are several servers,
and the faults are those of a cluster: failovers, a lost node, a rollout.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.report import table
from tests.faults.cluster import ClusterSuite
from tests.faults.fault_run import FaultRun
from tests.faults.faults import CLUSTER_DAYS, DAYS, Fault, shuffled
from tests.faults.processes import Suite

HEAD = ["what was done", "times", "reads failed for at most, s", "writes failed for at most, s"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("minutes", nargs="?", type=float, default=5)
    parser.add_argument(
        "--seed", type=int, default=random.randrange(2**32), help="repeats the faults of a run"
    )
    parser.add_argument("--cluster", action="store_true", help="a suite as on several nodes, and its faults")
    given = parser.parse_args()
    kind, days = (ClusterSuite, CLUSTER_DAYS) if given.cluster else (Suite, DAYS)
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="microblog-soak-"))
    folder.chmod(0o755)  # PostgreSQL's user has to reach it
    report = FaultRun(kind(folder), given.seed).run(_for(given.minutes * 60, shuffled(given.seed, days)))
    problems = [
        *sorted(report.checker.lost), *sorted(report.checker.doubled), *report.wrong, *report.failures(),
        *report.slow_refusals, *report.slow_recoveries, *report.bugs, *report.unnotified,
    ]  # fmt: skip
    table(HEAD, report.longest_failures())
    print(*problems, sep="\n")
    print(report)
    if problems:
        sys.exit(f"what everybody said is in {folder}")
    shutil.rmtree(folder, ignore_errors=True)


def _for(seconds: float, faults: Iterator[Fault]) -> Iterator[Fault]:
    end = time.monotonic() + seconds
    for fault in faults:
        if time.monotonic() > end:
            return
        yield fault


if __name__ == "__main__":
    main()
