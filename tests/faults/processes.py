"""A suite on private ports, in parts that can be killed, hung and started again one by one."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import httpx2
import psutil
import redis
import server_processes
import suite

from tests import plain_http
from tests.faults.mail_server import ACCEPT, DEFER
from tests.own_server import Kind
from tests.polling import PATIENCE_SECONDS, eventually
from tests.postgres_operator import configure, end_sessions

Launch = Callable[[], "subprocess.Popen[bytes]"]

LINES = suite.procfile()
SERVICES = ("users", "timelines", "likes", "polls")
WORKERS = tuple(line.name for line in LINES if line.name.endswith("_worker"))


def mail(data: Path, port: int) -> server_processes.Server:
    return server_processes.mail(data, port, "tests.faults.mail_server.DeferringMailbox")


STARTERS = [mail if start is server_processes.mail else start for start in server_processes.STARTERS]


class Part(Protocol):
    """What faults happen to; it has a method for each of their verbs."""

    def start(self) -> None: ...

    def end(self) -> None:
        """Whatever state it is in."""
        ...

    def repair(self) -> None:
        """Do what is left to do when it serves again, and wait until that is done."""
        ...


class Process:
    """One process with its children, or none while it is down."""

    _stop_signal = signal.SIGTERM

    def __init__(self, name: str, port: int, launch: Launch) -> None:
        self.name = name
        self.port = port
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def place(self) -> str:
        return f"{server_processes.HOST}:{self.port}"

    def start(self) -> None:
        self._process = self._launch()

    def kill(self) -> None:
        """As the kernel does when there is no memory left, children first."""
        self._signal(signal.SIGKILL)
        self._running.wait()

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """As an operator does. A process that does not end is a failure of its own."""
        self._running.send_signal(self._stop_signal)
        self._running.wait(PATIENCE_SECONDS)

    def repair(self) -> None:
        """Nothing is left to do."""

    def end(self) -> None:
        if self._process and self._process.poll() is None:
            self.resume()
            self._signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(suite.STOP_SECONDS)
                return
            self.kill()

    def listens(self) -> bool:
        sockets = psutil.Process(self._running.pid).net_connections("tcp")
        return any(one.status == psutil.CONN_LISTEN for one in sockets)

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process, f"{self.name} was never started"
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        for pid in (*_descendants(self._running.pid), self._running.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class PostgresProcess(Process):
    """PostgreSQL, which may also become read-only, as after a failover to a standby."""

    _stop_signal = signal.SIGINT  # SIGTERM would wait for every client to leave

    def freeze(self) -> None:
        """Become read-only, and lose every connection."""
        configure(self.port, "SET default_transaction_read_only = on")
        end_sessions(self.port)

    def thaw(self) -> None:
        """Take writes again; connections that were opened meanwhile stay read-only."""
        configure(self.port, "RESET default_transaction_read_only")


class RedisProcess(Process):
    """Redis, which may also become a replica, as after a failover to another."""

    def demote(self) -> None:
        """Become a read-only replica of a host that is not there, and so keep all that is acknowledged."""
        self._replicate(server_processes.HOST, str(server_processes.free_port()))

    def promote(self) -> None:
        """Become a master again."""
        self._replicate("NO", "ONE")

    def _replicate(self, host: str, port: str) -> None:
        with redis.Redis(server_processes.HOST, self.port) as client:
            client.replicaof(host, port)


class MailProcess(Process):
    """The mail server, which may also defer the mails to every second user."""

    def defer(self) -> None:
        self._running.send_signal(DEFER)

    def accept(self) -> None:
        self._running.send_signal(ACCEPT)


CLASSES = {"postgres": PostgresProcess, "redis": RedisProcess, "mail": MailProcess}


def _descendants(pid: int) -> Iterator[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split() if children.exists() else ():
        yield from _descendants(int(child))
        yield int(child)


class Suite:
    """The stores, the registry, the gateway, two instances of every service, the three workers."""

    pause_seconds = 0.4
    # Lines of the Procfile with two instances.
    twice = SERVICES

    def __init__(self, data: Path) -> None:
        self.data = data
        self.parts: dict[str, Part] = dict(self._stores())
        self.processes = {name: self._process(name, line) for line in LINES for name in self._names(line)}
        self.parts |= self.processes
        self.port = next(self._of("gateway")).port
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def queue_ports(self) -> list[int]:
        return [part.port for part in self._of("beanstalkd")]

    def start(self) -> None:
        for part in self.parts.values():
            part.start()
        eventually(self.is_whole)
        eventually(self.is_redundant)

    def end(self) -> None:
        for part in reversed(self.parts.values()):
            part.end()

    def is_whole(self) -> bool:
        """Whether the gateway knows two instances of every service, all of them well."""
        try:
            health = plain_http.get(f"{self.url}/health", timeout=PATIENCE_SECONDS).json()
            services = plain_http.get(f"{self.url}/", timeout=PATIENCE_SECONDS).json()["services"]
        except httpx2.TransportError:
            return False
        return health["registry"] == "ok" and all(
            (one["status"], one["instances"]) == ("up", 2) for one in services.values()
        )

    def is_redundant(self) -> bool:
        """Whether what is there twice, so that one may be lost, is there twice."""
        return True

    def logs(self) -> Iterable[tuple[str, str]]:
        """What every process of ours has said, by name."""
        return [(path.stem, path.read_text()) for path in sorted(self.data.glob("*.log"))]

    def variables(self) -> Mapping[str, str]:
        """What all processes of ours are given."""
        ports = {name: part.port for name, part in self.parts.items() if isinstance(part, Process)}
        # The load is one machine's, and meant to be. Deferred mails arrive while the run lasts.
        return suite.locations(ports) | {"RATE_LIMIT": "off", "SMTP_RETRY_SECONDS": "2"}

    def _stores(self) -> Iterator[tuple[str, Part]]:
        for start in STARTERS:
            yield start.__name__, self._store(start.__name__, start)

    def _names(self, line: suite.Line) -> Iterable[str]:
        return (f"{line.name}.1", f"{line.name}.2") if line.name in self.twice else (line.name,)

    def _store(self, name: str, start: Kind) -> Process:
        port = server_processes.free_port()
        folder = self.data / "stores" / name
        return CLASSES.get(name, Process)(name, port, lambda: start(folder, port)._process)

    def _port_of(self, line: suite.Line) -> int:
        return server_processes.free_port()

    def _process(self, name: str, line: suite.Line) -> Process:
        port = self._port_of(line)
        return Process(name, port, lambda: line.start(self.data / f"{name}.log", self.variables(), port))

    def _of(self, part: str) -> Iterator[Process]:
        """The processes of this name, of which there may be two."""
        for name, process in self.parts.items():
            if name.partition(".")[0] == part and isinstance(process, Process):
                yield process
