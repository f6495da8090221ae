"""Look at buried jobs, kick them back into their tubes, or delete them; see how full each tube is.

A buried job is one that a worker has given up. `list` prints a line for each: its tube, its number, its
age in seconds, how often it was tried since beanstalkd started, and how it begins. Why it was buried is
in the log of the worker: look for "job NUMBER buried". On standard error, `list` has a line for each tube
with jobs: how many are ready, delayed, reserved and buried, and how old the next one is.
"""

import argparse
import json
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import greenstalk
from pydantic import ValidationError

from common.jobs.queue import FAILURES, TIMEOUT_SECONDS, Envelope, Tube, measure
from common.settings import BeanstalkdSettings

# A tube without workers. A job put here is deleted at once: only its number matters.
PROBE_TUBE = "jobs.probe"
SHOWN_CHARACTERS = 100
AGED_STATES = ("ready", "delayed", "buried")


@dataclass(frozen=True)
class BuriedJob:
    """A job that a worker has given up; `age` is in seconds."""

    tube: str
    id: int
    age: int
    attempts: int
    text: bytes

    def __str__(self) -> str:
        return f"{self.tube} {self.id} {self.age}s {self.attempts} {self.preview()}"

    def preview(self) -> str:
        """The payload, cut, or all the text when it is unreadable. ASCII only: a terminal obeys control
        characters."""
        try:
            return json.dumps(Envelope.model_validate_json(self.text).payload)[:SHOWN_CHARACTERS]
        except ValidationError:
            return f"unreadable: {self.text[:SHOWN_CHARACTERS]!a}"


class BuriedJobs:
    """The buried jobs of a beanstalkd. Looking reserves none, so a crash here changes nothing."""

    def __init__(self, client: greenstalk.Client[bytes]) -> None:
        self._client = client
        self.close = client.close

    @classmethod
    def connect(cls, host: str, port: int) -> Self:
        connection = socket.create_connection((host, port), timeout=TIMEOUT_SECONDS)
        return cls(greenstalk.Client(connection, encoding=None, use=PROBE_TUBE))

    def find(self, tube: str | None = None) -> list[BuriedJob]:
        """The jobs buried in this tube, or in any, oldest first.

        Beanstalkd shows only the first buried job of a tube. So this requests
        every number, from the newest down, until it has found them all.
        """
        found: list[BuriedJob] = []
        numbers = iter(range(self._newest(), 0, -1))
        while len(found) < self._count(tube) and (job := self._next(numbers, tube)):
            found.append(job)
        return found[::-1]

    def get(self, number: int) -> BuriedJob | None:
        """None if there is no such job, or it is not buried."""
        try:
            stats = self._client.stats_job(number)
            if stats["state"] != "buried":
                return None
            text = self._client.peek(number).body
        except greenstalk.NotFoundError:
            return None
        return BuriedJob(stats["tube"], number, stats["age"], stats["reserves"], text)

    def tubes(self, tube: str | None = None) -> Iterator[tuple[str, Tube]]:
        """This tube, or all, by name: those that have jobs."""
        for name in sorted(self._client.tubes()):
            if tube in (None, name) and any((found := self._measure(name)).jobs.values()):
                yield name, found

    def _measure(self, tube: str) -> Tube:
        # A tube that a client uses cannot be gone.
        self._client.use(tube)
        try:
            return measure(self._client, tube, AGED_STATES)
        finally:
            self._client.use(PROBE_TUBE)

    def kick(self, job: BuriedJob) -> None:
        self._client.kick_job(job.id)

    def delete(self, job: BuriedJob) -> None:
        self._client.delete(job.id)

    def _newest(self) -> int:
        number = self._client.put(b"")
        self._client.delete(number)
        return number

    def _count(self, tube: str | None) -> int:
        try:
            stats = self._client.stats_tube(tube) if tube else self._client.stats()
        except greenstalk.NotFoundError:
            return 0
        return int(stats["current-jobs-buried"])

    def _next(self, numbers: Iterator[int], tube: str | None) -> BuriedJob | None:
        jobs = (self.get(number) for number in numbers)
        return next((job for job in jobs if job and tube in (None, job.tube)), None)


def _select(jobs: BuriedJobs, options: argparse.Namespace) -> list[BuriedJob]:
    if options.command == "list" or options.all:
        return jobs.find(options.tube)
    given = [(number, jobs.get(number)) for number in options.id]
    if missing := [
        str(number) for number, job in given if job is None or options.tube not in (None, job.tube)
    ]:
        raise LookupError(f"not buried: {' '.join(missing)}")
    return [job for _, job in given if job]


def tube_line(name: str, tube: Tube) -> str:
    """As `tube posts: ready 2 (5s), delayed 0, reserved 1, buried 0`."""
    ages = {state: f" ({age}s)" for state, age in tube.age_seconds.items() if tube.jobs[state]}
    counts = (f"{state} {count}{ages.get(state, '')}" for state, count in tube.jobs.items())
    return f"tube {name}: {', '.join(counts)}"


def _run(jobs: BuriedJobs, options: argparse.Namespace) -> None:
    if options.command == "list":
        for name, tube in jobs.tubes(options.tube):
            # Standard output has a line for each buried job, and nothing else: scripts read it.
            print(tube_line(name, tube), file=sys.stderr)
    settle: dict[str, Callable[[BuriedJob], object]] = {"kick": jobs.kick, "delete": jobs.delete}
    chosen = _select(jobs, options)
    for job in chosen:
        if options.command in settle:
            settle[options.command](job)
        print(job)
    if not chosen:
        print("no job is buried", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m common.jobs",
        description=__doc__,
        epilog="Exit code 1: beanstalkd is unavailable, or a number is not buried; then nothing is done.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,kick,delete}")
    for name, does in (
        ("list", "show buried jobs, and how full the tubes are"),
        ("kick", "have buried jobs tried again"),
        ("delete", "delete buried jobs for good"),
    ):
        command = commands.add_parser(name, help=does, description=does.capitalize() + ".")
        command.add_argument("--tube", help="only those in this tube")
        if name != "list":
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument("id", nargs="*", type=int, default=[], help="a job's number, as listed")
            which.add_argument("--all", action="store_true", help="all that are listed")
    return parser.parse_args()


def main() -> None:
    options, settings = _options(), BeanstalkdSettings.read()
    address = (settings.beanstalkd_host, settings.beanstalkd_port)
    try:
        with closing(BuriedJobs.connect(*address)) as jobs:
            _run(jobs, options)
    except LookupError as exc:
        sys.exit(str(exc))
    except FAILURES as exc:
        sys.exit(f"beanstalkd at {address[0]}:{address[1]}: {exc!r}")


if __name__ == "__main__":
    main()
