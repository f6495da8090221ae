"""Faults at random for as long as you like: `bin/soak [minutes]`. The last line has the figures."""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.fault_run import Fault, FaultRun, shuffled


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/soak", description=__doc__)
    parser.add_argument("minutes", nargs="?", type=float, default=5)
    parser.add_argument(
        "--seed", type=int, default=random.randrange(2**32), help="repeats the faults of a run"
    )
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="microblog-soak-"))
    folder.chmod(0o755)  # PostgreSQL's user has to reach it
    report = FaultRun(folder, given.seed).run(_for(given.minutes * 60, given.seed))
    problems = [
        *sorted(report.checker.lost), *sorted(report.checker.doubled), *report.wrong, *report.failures(),
        *report.slow_refusals, *report.slow_recoveries, *report.bugs, *report.unnotified,
    ]  # fmt: skip
    print(*problems, sep="\n")
    print(report)
    if problems:
        sys.exit(f"what everybody said is in {folder}")
    shutil.rmtree(folder, ignore_errors=True)


def _for(seconds: float, seed: int) -> Iterator[Fault]:
    end = time.monotonic() + seconds
    for fault in shuffled(seed):
        if time.monotonic() > end:
            return
        yield fault


if __name__ == "__main__":
    main()
