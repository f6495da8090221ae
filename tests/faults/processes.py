"""A suite on private ports, in parts that can be killed, hung and started again one by one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import server_processes

from tests.polling import eventually

ROOT = Path(__file__).parents[2]
SERVICES = ("users", "timelines", "likes", "polls")
WORKERS = {
    "timelines_worker": ["-m", "timelines_service.workers"],
    "validation_worker": ["-m", "likes_service.workers"],
    "notification_worker": ["-m", "likes_service.workers", "notification"],
}
START_SECONDS = 60
# foreman kills what takes longer.
STOP_SECONDS = 5


class Process:
    """One process with its children, or none while it is down."""

    def __init__(self, name: str, launch: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self.name = name
        self._launch = launch
        self._process: subprocess.Popen[bytes] | None = None

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
        """As an operator does. A process that does not end in time is a failure of its own."""
        self._running.send_signal(signal.SIGINT if self.name == "postgres" else signal.SIGTERM)
        self._running.wait(STOP_SECONDS)

    def end(self) -> None:
        """Whatever state it is in."""
        if self._process and self._process.poll() is None:
            self.resume()
            self._signal(signal.SIGTERM if self.name != "postgres" else signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
                return
            self.kill()

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process, f"{self.name} was never started"
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        for pid in (*_descendants(self._running.pid), self._running.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> Iterator[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for child in children.read_text().split() if children.exists() else ():
        yield from _descendants(int(child))
        yield int(child)


class Suite:
    """The stores, the registry, the gateway, two instances of every service, the three workers."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.ports = {name: server_processes.free_port() for name in self._names()}
        self.url = f"http://127.0.0.1:{self.ports['gateway']}"
        self.processes = {name: Process(name, launch) for name, launch in self._launches()}

    def start(self) -> None:
        for process in self.processes.values():
            process.start()
        eventually(self.is_whole, START_SECONDS)

    def end(self) -> None:
        for process in reversed(self.processes.values()):
            process.end()

    def is_whole(self) -> bool:
        """Whether the gateway knows two instances of every service, all of them well."""
        try:
            health = httpx2.get(f"{self.url}/health", timeout=5, trust_env=False).json()
            services = httpx2.get(f"{self.url}/", timeout=5, trust_env=False).json()["services"]
        except httpx2.TransportError:
            return False
        return health["registry"] == "ok" and all(
            (one["status"], one["instances"]) == ("up", 2) for one in services.values()
        )

    def logs(self) -> Iterable[tuple[str, str]]:
        """What every process of ours has said, by name."""
        return [(path.stem, path.read_text()) for path in sorted(self.data.glob("*.log"))]

    @staticmethod
    def _names() -> Iterator[str]:
        yield from ("postgres", "redis", "beanstalkd", "dynamodb", "mail", "registry", "gateway")
        yield from (f"{service}.{number}" for service in SERVICES for number in (1, 2))

    def _launches(self) -> Iterator[tuple[str, Callable[[], "subprocess.Popen[bytes]"]]]:
        for store in (
            server_processes.postgres,
            server_processes.redis,
            server_processes.beanstalkd,
            server_processes.dynamodb,
            server_processes.mail,
        ):
            yield store.__name__, self._store(store)
        yield "registry", self._process("registry", ["-m", "registry_service.app"])
        for service in SERVICES:
            for name in (f"{service}.1", f"{service}.2"):
                yield name, self._process(name, ["-m", f"{service}_service.app"])
        yield "gateway", self._process("gateway", ["gateway.py"])
        for worker, arguments in WORKERS.items():
            yield worker, self._process(worker, arguments)

    def _store(
        self, start: Callable[[Path, int], server_processes.Server]
    ) -> Callable[[], "subprocess.Popen[bytes]"]:
        name = start.__name__
        return lambda: start(self.data / "stores" / name, self.ports[name])._process

    def _process(self, name: str, arguments: list[str]) -> Callable[[], "subprocess.Popen[bytes]"]:
        def launch() -> "subprocess.Popen[bytes]":
            with (self.data / f"{name}.log").open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, *arguments],
                    cwd=ROOT,
                    env=os.environ | self._variables(name),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )

        return launch

    def _variables(self, name: str) -> dict[str, str]:
        port = {"PORT": str(self.ports[name])} if name in self.ports else {}
        return port | {
            "REGISTRY_URL": f"http://127.0.0.1:{self.ports['registry']}",
            "DB_PORT": str(self.ports["postgres"]),
            "REDIS_URL": f"redis://127.0.0.1:{self.ports['redis']}/0",
            "BEANSTALKD_PORT": str(self.ports["beanstalkd"]),
            "DYNAMODB_URL": f"http://127.0.0.1:{self.ports['dynamodb']}",
            "SMTP_PORT": str(self.ports["mail"]),
            # The load is one machine's, and meant to be.
            "RATE_LIMIT": "off",
        }
