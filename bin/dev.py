"""Starts the backing servers and every line of the Procfile, says where to go, stops it all on Ctrl-C."""

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from subprocess import Popen
from threading import Event

import backing_services
import server_processes
import suite
from backing_services import DATA, MAIL_PORT, say
from log_files import LogFiles
from source_changes import SourceChanges

READY_SECONDS = 60
# What runs here is asked directly, whatever `http_proxy` says.
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# With what stands above it, it fits into 24 lines of 80 characters.
BANNER = """
  Microblog is up: http://{host}/docs (Ctrl-C stops it). Or paste this:

curl -sw '\\n' {host}/register --json '{{"username": "alice",
  "password": "correct horse battery staple", "email": "alice@example.com"}}'
curl -sw '\\n' {host}/register --json '{{"username": "bob", "password": "quiet river paper lantern"}}'
ALICE=$(curl -s {host}/login -d 'username=alice&password=correct horse battery staple' | cut -d'"' -f4)
BOB=$(curl -s {host}/login -d 'username=bob&password=quiet river paper lantern' | cut -d'"' -f4)
POST=$(curl -s {host}/posts -H "Authorization: Bearer $ALICE" --json '{{"text": "Hello!"}}' | cut -d'"' -f4)
curl -sw '\\n' -X POST {host}/likes/$POST -H "Authorization: Bearer $BOB"

  Bob's like sends alice a mail: {mails}
  What the processes log is in {logs}; warnings are shown here, too."""
SAFETY = "\n  Safe on this machine only: SECURITY.md says what it takes beyond."


class StartupAborted(Exception):
    """It is over before it has begun."""


class Suite:
    """The Procfile's processes, on their default ports."""

    def __init__(self, lines: Iterable[suite.Line], variables: Mapping[str, str], logs: LogFiles) -> None:
        self._lines = {line.name: line for line in lines}
        self._variables = variables
        self._logs = logs
        self._running: dict[str, Popen[bytes]] = {}

    def start(self, names: Iterable[str] | None = None) -> None:
        for name in self._lines if names is None else names:
            self._running[name] = self._lines[name].start(self._logs.paths[name], self._variables)

    def stop(self) -> None:
        """Stop the first line last: the registry, from which the others deregister."""
        first, *others = self._lines
        self._stop(others)
        self._stop([first])

    def restart(self, sources: set[str]) -> None:
        """Start those again whose code is in one of these modules or packages."""
        names = [line.name for line in self._lines.values() if {line.source, "common"} & sources]
        if names:
            _report(f"changed: {', '.join(sorted(sources))}; starting {', '.join(names)} again")
            self._stop(names)
            self.start(names)

    def take_ended(self) -> str:
        """The processes that have ended by themselves since the last time."""
        ended = [name for name, process in self._running.items() if process.poll() is not None]
        for name in ended:
            del self._running[name]
        return ", ".join(ended)

    def _stop(self, names: Iterable[str]) -> None:
        suite.stop(self._running.pop(name) for name in names if name in self._running)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bin/dev", description=__doc__)
    parser.add_argument("--reload", action="store_true", help="start a service again when its code changes")
    options = parser.parse_args()
    stop = backing_services.until_stopped()
    variables = backing_services.environment()
    try:
        lines = suite.procfile()
        _require_free_ports(lines)
        with backing_services.BackingServices(backing_services.expected(variables)):
            _run(lines, variables, stop, options.reload)
    except (StartupAborted, backing_services.WrongServer, server_processes.NotStarted) as exc:
        sys.exit(str(exc))


def _require_free_ports(lines: Iterable[suite.Line]) -> None:
    for line in lines:
        if line.port and not server_processes.is_free(line.port):
            raise StartupAborted(
                f"Port {line.port} is taken by something else.\n"
                f"Stop what runs there, or change the port in the Procfile's line `{line.name}:`."
            )


def _run(lines: list[suite.Line], variables: dict[str, str], stop: Event, reloads: bool) -> None:
    shows_access = variables.get("LOG_ACCESS", "").lower() in ("on", "true", "yes", "1")
    logs = LogFiles(DATA / "log", [line.name for line in lines], shows_access, say)
    changes = SourceChanges(stop) if reloads else None
    running = Suite(lines, _for_processes(variables), logs)
    [host] = [f"localhost:{line.port}" for line in lines if line.name == "gateway"]
    try:
        running.start()
        _watch(running, logs, stop, changes, host)
    finally:
        running.stop()
        logs.close()


def _watch(running: Suite, logs: LogFiles, stop: Event, changes: SourceChanges | None, host: str) -> None:
    """Show what the processes warn of, say when they are ready, start them again when their code changes."""
    ready_by: float | None = time.monotonic() + READY_SECONDS
    while not stop.wait(0.2):
        logs.show()
        if changes and (sources := changes.take()):
            running.restart(sources)
        if ready_by:
            ready_by = _say_when_ready(host, ready_by, logs)
        if ended := running.take_ended():
            logs.show()
            if not changes:
                raise StartupAborted(f"{ended} has stopped by itself; the reason is above.")
            _report(f"{ended} has stopped by itself; it starts again when its code changes")


def _say_when_ready(host: str, ready_by: float, logs: LogFiles) -> float | None:
    """Until when to go on asking; None once there is nothing more to say."""
    missing = _missing(f"http://{host}")
    if missing and time.monotonic() < ready_by:
        return ready_by
    logs.show()
    if missing:
        say(f"\nNot ready after {READY_SECONDS} s: {missing}. What it says itself is in {DATA}/log.\n")
    else:
        elsewhere = backing_services.environment().get("SMTP_HOST")
        mails = f"it goes to {elsewhere}." if elsewhere else f"ls {DATA}/mail/new"
        say(BANNER.format(host=host, mails=mails, logs=DATA / "log") + SAFETY * logs.is_safe_here_only)
    return None


def _report(event: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} {event}")


def _for_processes(variables: dict[str, str]) -> dict[str, str]:
    given: dict[str, str] = {}
    if not variables.get("SMTP_HOST"):
        given |= {"SMTP_HOST": server_processes.HOST, "SMTP_PORT": str(MAIL_PORT)}
    if not variables.get("LOG_FORMAT"):
        given["LOG_FORMAT"] = "text"
    return variables | given


def _missing(url: str) -> str:
    """Which services the gateway misses; nothing when all is well."""
    try:
        with DIRECTLY.open(f"{url}/health", timeout=2) as answer:
            health = json.load(answer)
    except urllib.error.HTTPError as exc:
        health = json.load(exc)
    except OSError:
        return "the gateway"
    return ", ".join(name for name, state in health["checks"].items() if state != "ok")


if __name__ == "__main__":
    main()
