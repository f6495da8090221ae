"""What is measured: servers of our own, services and their baselines as processes, and what they cost."""

import contextlib
import json
import os
import re
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

ROOT = Path(__file__).parent.parent
SERVICES = ("users", "timelines", "likes", "polls")
PROCFILE_LINE = re.compile(r"^(?P<name>\w+): .*exec python (?P<command>.+)$", re.MULTILINE)

READY_SECONDS = 60
STOP_SECONDS = 10


class Running:
    """A process of the suite, or of a baseline."""

    def __init__(self, name: str, port: int, process: psutil.Popen) -> None:
        self.name = name
        self.port = port
        self._process = process

    def cpu(self) -> float:
        """Seconds of CPU so far, of all its threads."""
        times = self._process.cpu_times()
        return times.user + times.system

    def rss(self) -> float:
        """MB of memory now."""
        return float(self._process.memory_info().rss) / 1e6


class Processes:
    """Starts processes and backing servers on free ports, and stops them all in the end."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
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
        return server.port

    def python(self, name: str, *arguments: str, port: int = 0, **variables: str) -> Running:
        """Start a Python process, its output going nowhere that anybody waits for."""
        log = self._stack.enter_context((self._data / f"{name}-{port}.log").open("wb"))
        process = psutil.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=os.environ | self.environment | ({"PORT": str(port)} if port else {}) | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._stack.callback(_stop, process)
        return Running(name, port, process)

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
        self.environment |= {
            "DB_PORT": str(self.store(server_processes.postgres)),
            "REDIS_URL": f"redis://127.0.0.1:{self.store(server_processes.redis)}/0",
            "BEANSTALKD_PORT": str(self.store(server_processes.beanstalkd)),
            "DYNAMODB_URL": f"http://127.0.0.1:{self.store(server_processes.dynamodb)}",
            "SMTP_PORT": str(self.store(server_processes.mail)),
        }

    def suite(self, instances: int = 1) -> list[Running]:
        """Start every line of the Procfile, those of the four services that often, and wait for them."""
        registry = server_processes.free_port()
        self.environment["REGISTRY_URL"] = f"http://127.0.0.1:{registry}"
        running: list[Running] = []
        for line in PROCFILE_LINE.finditer((ROOT / "Procfile").read_text()):
            name, command = line["name"], line["command"].split()
            for _ in range(instances if name in SERVICES else 1):
                port = registry if name == "registry" else server_processes.free_port()
                running.append(self.python(name, *command, port=port))
        gateway = next(one for one in running if one.name == "gateway")
        wait_until(partial(_is_whole, gateway.port, instances), "the suite")
        return running


def _is_whole(gateway: int, instances: int) -> bool:
    """Whether every instance is up, as the gateway sees it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{gateway}/", timeout=2) as answer:
            services = json.load(answer)["services"].values()
    except OSError:
        return False
    return all(one["status"] == "up" and one["instances"] == instances for one in services)


def _stop(process: psutil.Popen) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()


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
