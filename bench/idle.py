"""What the suite costs when it is idle: time to start, memory, CPU.

.venv/bin/python -m bench.idle [--seconds 30]
"""

import argparse
import time

from bench.processes import Processes
from bench.report import progress, table

READY_SECONDS, MEGABYTES, PERCENT = 6, 700, 3.0
# What starting leaves to do is no part of being idle.
SETTLE_SECONDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=30)
    options = parser.parse_args()
    with Processes() as processes:
        progress(0, options.seconds, "starting the stores")
        processes.stores()
        began = time.monotonic()
        suite = processes.suite()
        ready = time.monotonic() - began
        time.sleep(SETTLE_SECONDS)
        before = [one.cpu() for one in suite]
        for second in range(options.seconds):
            progress(second, options.seconds, "seconds of doing nothing")
            time.sleep(1)
        progress(options.seconds, options.seconds, "done")
        cpu = [(one.cpu() - was) / options.seconds * 100 for one, was in zip(suite, before, strict=True)]
        memory = [one.rss() for one in suite]
    rows = [(one.name, mb, percent) for one, mb, percent in zip(suite, memory, cpu, strict=True)]
    table(("process", "RSS, MB", "% of a core"), [*rows, ("all", sum(memory), sum(cpu))])
    print()
    table(
        ("the suite", "measured", "reach <="),
        [
            ("seconds until it is ready", ready, READY_SECONDS),
            ("RSS, MB", sum(memory), MEGABYTES),
            ("% of a core", sum(cpu), PERCENT),
        ],
    )


if __name__ == "__main__":
    main()
