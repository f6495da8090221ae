"""A PostgreSQL with a standby that lags, is killed, comes back, and takes the primary's place.

bin/try replica [--rate 10] [--seconds 10]

Behind a gateway, two timelines services read from the standby what may be a moment old. A client with a token
writes posts and looks for each at once. A client without one reads the newest post, and notes how old it is.
The exit code is 1 if the writer misses a post, if a post is lost, or if a read fails before the primary does.
"""

import argparse
import signal
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import server_processes

from bench.processes import Processes
from bench.trials._load import Step, main, started, take
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from tests.own_server import OwnServer
from tests.postgres_operator import configure, operate

DATABASE = "microblog_timelines"


class Clients:
    """One that writes, and one without a token."""

    def __init__(self, port: int) -> None:
        token = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(hours=10)).issue("alice")
        url = f"http://127.0.0.1:{port}"
        self._writer = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        self._reader = httpx.Client(base_url=url, timeout=10)
        self.written: list[str] = []
        self.oldest = 0.0
        self._last_write: list[tuple[float, str]] = []

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def write(self, number: int) -> str:
        """Write a post, and look for it in a list."""
        response = self._writer.post("/posts", json={"text": str(number)})
        if response.status_code != httpx.codes.CREATED:
            return str(response.status_code)
        post_id = response.json()["id"]
        self.written.append(post_id)
        self._last_write.append((time.monotonic(), post_id))
        found = self._writer.get("/posts/alice", params={"limit": 1})
        if found.is_success:
            return "seen" if found.json()[0]["id"] == post_id else "missed"
        return f"then {found.status_code}"

    def read(self, _: int) -> str:
        began = time.monotonic()
        response = self._reader.get("/posts", params={"limit": 1})
        if response.is_success and response.json():
            self._note_age(began, response.json()[0]["id"])
        return str(response.status_code)

    def _note_age(self, began: float, seen: str) -> None:
        """How long the next post had been there that this read does not show."""
        missed = [at for at, post_id in self._last_write if post_id > seen]
        self.oldest = max([self.oldest, *(began - at for at in missed[:1])])

    def lost(self) -> int:
        known = (
            self._writer.get("/posts", params={"id": self.written[at : at + 100]}) for at in self._pages()
        )
        return len(self.written) - sum(len(response.raise_for_status().json()) for response in known)

    def _pages(self) -> range:
        return range(0, len(self.written), 100)


def run(options: argparse.Namespace, stack: ExitStack) -> bool:
    """Whether all went as promised."""
    data = Path(stack.enter_context(TemporaryDirectory(prefix="microblog-try-")))
    data.chmod(0o755)  # PostgreSQL's user, which is not root, has to reach it
    primary = started(stack, server_processes.postgres, data / "primary")
    configure(primary.port, "SET wal_retrieve_retry_interval = '1s'")
    standby = started(stack, partial(server_processes.postgres, primary=primary.port), data / "standby")
    gateway = _start(stack.enter_context(Processes()), primary, standby)
    clients = stack.enter_context(closing(Clients(gateway)))
    steps: list[Step] = [
        ("nothing", lambda: None),
        ("the standby stops to follow", partial(operate, standby.port, "SELECT pg_wal_replay_pause()")),
        ("it follows again", partial(operate, standby.port, "SELECT pg_wal_replay_resume()")),
        ("it is killed", partial(standby.end_by, signal.SIGQUIT)),
        ("it is back", standby.start),
        ("the primary is killed", partial(primary.end_by, signal.SIGQUIT)),
        ("the standby takes its place", partial(operate, standby.port, "SELECT pg_promote()")),
    ]
    loads = take(steps, {"written": clients.write, "read": clients.read}, options.rate, options.seconds)
    lost = clients.lost()
    print(f"{len(clients.written)} posts, {lost} lost; what was read was {clients.oldest:.1f} s old at most")
    reads = [set(load.outcomes["read"]) for load in loads[:5]]
    return (
        not lost and reads == [{"200"}] * 5 and not any(load.outcomes["written"]["missed"] for load in loads)
    )


def _start(processes: Processes, primary: OwnServer, standby: OwnServer) -> int:
    """Start two services and a gateway; the gateway's port."""
    url = "postgresql://postgres:postgres@{}/" + DATABASE
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    processes.environment |= {
        "TIMELINES_DATABASE_URL": url.format(hosts) + "?target_session_attrs=read-write",
        "TIMELINES_READ_DATABASE_URL": url.format(f"127.0.0.1:{standby.port}"),
        "BEANSTALKD_PORT": str(server_processes.free_port()),
        "RATE_LIMIT": "off",
    }
    registry = processes.service("registry", "-m", "registry_service.app")
    processes.environment["REGISTRY_URL"] = f"http://127.0.0.1:{registry.port}"
    for _ in range(2):
        processes.service("timelines", "-m", "timelines_service.app")
    return processes.service("gateway", "gateway.py").port


if __name__ == "__main__":
    main(run, __doc__, rate=10)
