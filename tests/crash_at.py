"""Runs a worker that is killed at one step of its work: its verb, and whether before or after it.

python -m tests.crash_at common.jobs.queue:JobQueue.delete before timelines_service.workers [argument…]
"""

import importlib
import os
import runpy
import signal
import sys


def main() -> None:
    step, moment, worker, *arguments = sys.argv[1:]
    place, _, path = step.partition(":")
    owner_name, verb = path.split(".")
    owner = getattr(importlib.import_module(place), owner_name)
    real = getattr(owner, verb)

    def die(*given: object, **named: object) -> None:
        if moment == "after":
            real(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, verb, die)
    sys.argv = [worker, *arguments]
    runpy.run_module(worker, run_name="__main__")


if __name__ == "__main__":
    main()
