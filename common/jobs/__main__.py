"""Look at buried jobs, kick them back into their tubes, or delete them; see how full each tube is.

A buried job is one that a worker has given up. `list` prints a line for each: its tube, its number, its
age in seconds, how often it was tried since beanstalkd started, and how it begins. Why it was buried is
in the log of the worker: look for "job NUMBER buried". On standard error, `list` has a line for each tube
with jobs: how many are ready, delayed, reserved and buried, and how old the next one is.

Where BEANSTALKD_HOST names several servers, each number is listed and given with its server, as in
localhost:11300/17. Those that are unavailable are left out, and the exit code is 1.
"""

import argparse
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

import greenstalk
from pydantic import ValidationError

from common.jobs.queue import FAILURES, TIMEOUT_SECONDS, Envelope, Tube, measure
from common.settings import BeanstalkdSettings, Server, netloc


class ServerUnavailable(Exception):
    """One of the servers does not do what it should; the text names it."""


# A tube without workers. A job put here is deleted at once: only its number matters.
PROBE_TUBE = "jobs.probe"
SHOWN_CHARACTERS = 100
AGED_STATES = ("ready", "delayed", "buried")


@dataclass(frozen=True)
class BuriedJob:
    """A job that a worker has given up; `age` is in seconds."""

    server: "BuriedJobs"
    tube: str
    id: int
    age: int
    attempts: int
    text: bytes

    def __str__(self) -> str:
        return f"{self.tube} {self.server.name}{self.id} {self.age}s {self.attempts} {self.preview()}"

    def preview(self) -> str:
        """The payload, cut, or all the text when it is unreadable. ASCII only: a terminal obeys control
        characters."""
        try:
            return json.dumps(Envelope.model_validate_json(self.text).payload)[:SHOWN_CHARACTERS]
        except ValidationError:
            return f"unreadable: {self.text[:SHOWN_CHARACTERS]!a}"


class BuriedJobs:
    """The buried jobs of a beanstalkd. Looking reserves none, so a crash here changes nothing.

    `name` stands before its numbers, if there are several servers.
    """

    def __init__(self, address: Server, name: str = "") -> None:
        """Connect to it."""
        connection = socket.create_connection(address, timeout=TIMEOUT_SECONDS)
        self._client = greenstalk.Client(connection, encoding=None, use=PROBE_TUBE)
        self.address = address
        self.name = name
        self.close = self._client.close

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
        return BuriedJob(self, stats["tube"], number, stats["age"], stats["reserves"], text)

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
    """What the options say of this server. Raises LookupError."""
    if options.all:
        return jobs.find(options.tube)
    numbers = [number for name, number in options.id if name == jobs.name]
    given = [(number, jobs.get(number)) for number in numbers]
    if missing := [
        f"{jobs.name}{number}" for number, job in given if job is None or options.tube not in (None, job.tube)
    ]:
        raise LookupError(f"not buried: {' '.join(missing)}")
    return [job for _, job in given if job]


def _show_tubes(jobs: BuriedJobs, tube: str | None) -> None:
    # Standard output has a line for each buried job, and nothing else: scripts read it.
    for name, found in jobs.tubes(tube):
        print(jobs.name.replace("/", " ") + tube_line(name, found), file=sys.stderr)


def tube_line(name: str, tube: Tube) -> str:
    """As `tube posts: ready 2 (5s), delayed 0, reserved 1, buried 0`."""
    ages = {state: f" ({age}s)" for state, age in tube.age_seconds.items() if tube.jobs[state]}
    counts = (f"{state} {count}{ages.get(state, '')}" for state, count in tube.jobs.items())
    return f"tube {name}: {', '.join(counts)}"


def _number(written: str) -> tuple[str, int]:
    """Of `17` or `host:port/17`: what stands before the number, and the number."""
    name, slash, number = written.rpartition("/")
    try:
        return name + slash, int(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {number!r}") from None


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
        if name == "list":
            command.set_defaults(all=True)
        else:
            which = command.add_mutually_exclusive_group(required=True)
            which.add_argument("id", nargs="*", type=_number, default=[], help="a job's number, as listed")
            which.add_argument("--all", action="store_true", help="all that are listed")
    return parser.parse_args()


@contextmanager
def _naming(server: Server) -> Iterator[None]:
    """Raises ServerUnavailable instead of what a server fails with."""
    try:
        yield
    except FAILURES as exc:
        raise ServerUnavailable(f"beanstalkd at {netloc(*server)}: {exc!r}") from exc


def _look(server: Server, name: str, options: argparse.Namespace, stack: ExitStack) -> list[BuriedJob]:
    """What the options say of this server. Raises ServerUnavailable, LookupError."""
    with _naming(server):
        jobs = stack.enter_context(closing(BuriedJobs(server, name)))
        if options.command == "list":
            _show_tubes(jobs, options.tube)
        return _select(jobs, options)


def _settle(job: BuriedJob, command: str) -> None:
    with _naming(job.server.address):
        if command == "kick":
            job.server.kick(job)
        elif command == "delete":
            job.server.delete(job)
    print(job)


def _run(servers: Mapping[str, Server], options: argparse.Namespace) -> None:
    """Raises LookupError, and ServerUnavailable when all is done that can be."""
    chosen: list[BuriedJob] = []
    unavailable: list[str] = []
    with ExitStack() as stack:
        for name, server in servers.items():
            try:
                chosen += _look(server, name, options, stack)
            except ServerUnavailable as exc:
                unavailable.append(str(exc))
        for job in chosen if options.all or not unavailable else ():
            _settle(job, options.command)
    if unavailable:
        raise ServerUnavailable("\n".join(unavailable))
    if not chosen:
        print("no job is buried", file=sys.stderr)


def _named(servers: Mapping[str, Server], options: argparse.Namespace) -> Mapping[str, Server]:
    """The servers that the options are about. Raises LookupError for a number without a server of its own."""
    if options.all:
        return servers
    if unknown := [f"{name}{number}" for name, number in options.id if name not in servers]:
        raise LookupError(f"not listed so: {' '.join(unknown)}")
    names = {name for name, _ in options.id}
    return {name: server for name, server in servers.items() if name in names}


def main() -> None:
    options, found = _options(), BeanstalkdSettings.read().beanstalkds
    servers = {f"{netloc(*server)}/" if len(found) > 1 else "": server for server in found}
    try:
        _run(_named(servers, options), options)
    except (LookupError, ServerUnavailable) as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
