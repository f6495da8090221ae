"""What trials share: servers that are broken and mended, and clients that call something meanwhile."""

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn, Self

from bench.report import progress, table
from tests.own_server import Kind, OwnServer

# Makes a call, and says in a word what came of it.
Call = Callable[[int], str]
Step = tuple[str, Callable[[], object]]


def started(stack: ExitStack, kind: Kind, data: Path) -> OwnServer:
    server = OwnServer(kind, data / "data")
    stack.callback(server.stop)
    server.start()
    return server


class Load:
    """Makes calls some times a second, each kind in a thread of its own, until the `with` ends."""

    def __init__(self, rate: float, calls: Mapping[str, Call]) -> None:
        self._rate = rate
        self._calls = calls
        self._stop = threading.Event()
        self.outcomes: dict[str, Counter[str]] = {name: Counter() for name in calls}
        self.slowest: dict[str, float] = dict.fromkeys(calls, 0.0)

    def __enter__(self) -> Self:
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in self._calls]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str) -> None:
        number = 0
        while not self._stop.wait(1 / self._rate):
            began = time.monotonic()
            self.outcomes[name][self._calls[name](number)] += 1
            self.slowest[name] = max(self.slowest[name], time.monotonic() - began)
            number += 1


def take(steps: Sequence[Step], calls: Mapping[str, Call], rate: float, seconds: float) -> list[Load]:
    """Take these steps one after the other, each with so many seconds of load after it; print a table."""
    loads = []
    for number, (name, step) in enumerate(steps):
        progress(number, len(steps), name)
        with Load(rate, calls) as load:
            step()
            time.sleep(seconds)
        loads.append(load)
    progress(len(steps), len(steps), "done")
    head = ["what is done", *(f"{name}{detail}" for name in calls for detail in ("", ", slowest in s"))]
    table(head, [[name, *_cells(load)] for (name, _), load in zip(steps, loads, strict=True)])
    return loads


def main(run: Callable[[argparse.Namespace, ExitStack], bool], about: str | None, rate: float) -> NoReturn:
    """Run a trial with its options; the exit code is 1 unless all went as promised."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=rate, help="calls a second, of each kind")
    parser.add_argument("--seconds", type=float, default=10, help="between two steps")
    with ExitStack() as stack:
        is_well = run(parser.parse_args(), stack)
    sys.exit(0 if is_well else 1)


def _cells(load: Load) -> list[object]:
    cells: list[object] = []
    for name, outcomes in load.outcomes.items():
        cells += [", ".join(f"{outcome} {count}" for outcome, count in outcomes.items()), load.slowest[name]]
    return cells
