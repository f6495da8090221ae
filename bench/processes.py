"""What is measured: servers of our own, services and their baselines as processes, and what they cost."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

import psutil
import server_processes
import suite

SERVICES = ("users", "timelines", "likes", "polls")
READY_SECONDS = 60
STOP_SECONDS = 10


class Running:
    """A process of the suite, or of a baseline."""

    def __init__(self, name: str, port: int, process: psutil.Process) -> None:
        self.name = name
        self.port = port
        self._process = process

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its threads and of the processes that it has started."""
        own = self._process.cpu_times()
        seconds = own.user + own.system + own.children_user + own.children_system
        for child in self._process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = child.cpu_times()
                seconds += times.user + times.system
        return seconds

    def pin(self, core: int) -> None:
        """Let all its threads run on this core only."""
        for thread in self._process.threads():
            os.sched_setaffinity(thread.id, {core})

    def rss(self) -> float:
        """MB of memory now."""
        return float(self._process.memory_info().rss) / 1e6


class Processes:
    """Starts processes and backing servers on free ports, and stops them all in the end."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.backing: list[Running] = []
        self.environment: dict[str, str] = {
            # Registered nowhere, unless a registry is started.
            "REGISTRY_URL": "",
            "LOG_FORMAT": "json",
            "JWT_EXPIRES_MINUTES": "600",
        }

    def __enter__(self) -> Self:
        self._data = Path(tempfile.mkdtemp(prefix="microblog-bench-"))
        self._data.chmod(0o755)  # PostgreSQL's user, which is not root, has to reach it
        self._stack.callback(shutil.rmtree, self._data, ignore_errors=True)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def store(self, start: Callable[[Path, int], server_processes.Server]) -> int:
        """Start a backing server; its port."""
        server = start(self._data / start.__name__, server_processes.free_port())
        self._stack.callback(server.stop)
        self.backing.append(Running(start.__name__, server.port, psutil.Process(server.pid)))
        return server.port

    def python(self, name: str, *arguments: str, port: int = 0, **variables: str) -> Running:
        """Start a Python process, its output going nowhere that anybody waits for."""
        given = self.environment | ({"PORT": str(port)} if port else {}) | variables
        return self._running(
            name, port, suite.start([sys.executable, *arguments], self._log(name, port), given)
        )

    def service(self, name: str, *arguments: str, **variables: str) -> Running:
        """Start one of our processes that serve, and wait until it is well."""
        running = self.python(name, *arguments, port=server_processes.free_port(), **variables)
        wait_for(f"http://127.0.0.1:{running.port}/health", name)
        return running

    def baseline(self, app: str, *arguments: str, **variables: str) -> Running:
        """Start an app of `bench.baselines` in uvicorn, with the loop and the parser that ours has."""
        port = server_processes.free_port()
        command = ["-m", "uvicorn", f"bench.baselines.{app}", "--port", str(port), "--no-access-log"]
        running = self.python(app, *command, "--log-level", "warning", *arguments, port=port, **variables)
        wait_for(f"http://127.0.0.1:{port}/", app)
        return running

    def stores(self) -> None:
        """Start the backing servers, and tell them to whatever is started from now on."""
        ports = {start.__name__: self.store(start) for start in server_processes.STARTERS}
        self.environment |= suite.locations(ports)

    def suite(self, instances: int = 1) -> list[Running]:
        """Start every line of the Procfile, those of the four services that often, and wait for them."""
        registry = server_processes.free_port()
        self.environment["REGISTRY_URL"] = f"http://127.0.0.1:{registry}"
        running: list[Running] = []
        for line in suite.procfile():
            for _ in range(instances if line.name in SERVICES else 1):
                port = registry if line.name == "registry" else server_processes.free_port()
                process = line.start(self._log(line.name, port), self.environment, port)
                running.append(self._running(line.name, port, process))
        gateway = next(one for one in running if one.name == "gateway")
        wait_until(partial(_is_whole, gateway.port, instances), "the suite")
        return running

    def _log(self, name: str, port: int) -> Path:
        return self._data / f"{name}-{port}.log"

    def _running(self, name: str, port: int, process: subprocess.Popen[bytes]) -> Running:
        self._stack.callback(suite.stop, [process], STOP_SECONDS)
        return Running(name, port, psutil.Process(process.pid))


def _is_whole(gateway: int, instances: int) -> bool:
    """Whether every instance is up, as the gateway sees it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway}/", timeout=2) as answer:
            services = json.load(answer)["services"].values()
    except OSError:
        return False
    return all(one["status"] == "up" and one["instances"] == instances for one in services)


def wait_for(url: str, name: str) -> None:
    """Until something answers there, and with no 503."""
    wait_until(partial(_answers, url), name)


def wait_until(is_so: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} is not ready after {READY_SECONDS} s")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError as exc:
        return exc.code != 503
    except OSError:
        return False
    return True
