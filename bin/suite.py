"""The suite's processes: the Procfile, read here alone, and how a process is started and stopped."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# foreman kills what takes longer.
STOP_SECONDS = 5

# foreman (in PS) and honcho number the instances of a line: the second users is `users.2`. Their PORT depends
# on the one in `.env`, so the Procfile makes each port of that number; here it is always the first.
_PORT = r"n=\S+; PORT=\$\(\((?P<port>\d+).*?\)\) "
_LINE = re.compile(rf"^(?P<name>\w+): (?:{_PORT})?(?P<command>.+)$", re.MULTILINE)
_PYTHON = re.compile(r"exec python (?:-m )?(?P<source>\w+)")

_WHERE = {
    "registry": ("REGISTRY_URL", "http://127.0.0.1:{}"),
    "postgres": ("DB_PORT", "{}"),
    "redis": ("REDIS_URL", "redis://127.0.0.1:{}/0"),
    "beanstalkd": ("BEANSTALKD_PORT", "{}"),
    "dynamodb": ("DYNAMODB_URL", "http://127.0.0.1:{}"),
    "mail": ("SMTP_PORT", "{}"),
}


@dataclass(frozen=True)
class Line:
    """A line of the Procfile: a process, and its default port if it listens on one."""

    name: str
    port: int | None
    command: str

    @property
    def source(self) -> str | None:
        """The package or the module that it runs."""
        found = _PYTHON.match(self.command)
        return found and found["source"]

    def start(
        self, log: Path, variables: Mapping[str, str], port: int | None = None
    ) -> "subprocess.Popen[bytes]":
        listens = {} if self.port is None else {"PORT": str(port or self.port)}
        return start(["/bin/sh", "-c", self.command], log, {**variables, **listens})


def procfile(text: str | None = None) -> list[Line]:
    text = text or (ROOT / "Procfile").read_text()
    return [
        Line(line["name"], int(line["port"]) if line["port"] else None, line["command"])
        for line in _LINE.finditer(text)
    ]


def start(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start a process with this Python on its `PATH`; these variables win over the environment."""
    environment = {**os.environ, **variables}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}"
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # A Ctrl-C is for the caller, which stops everything in order.
            start_new_session=True,
        )


def stop(processes: Iterable["subprocess.Popen[bytes]"], seconds: float = STOP_SECONDS) -> None:
    """Terminate them all at once, and kill those that are still there after these seconds."""
    processes = list(processes)
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def locations(ports: Mapping[str, int]) -> dict[str, str]:
    """The variables that lead a process to servers on these ports of this machine."""
    return {
        variable: where.format(ports[name]) for name, (variable, where) in _WHERE.items() if name in ports
    }
