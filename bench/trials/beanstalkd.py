"""Two Beanstalkds, of which one is killed, comes back, and is paused, while posts are queued.

bin/try beanstalkd [--rate 20] [--seconds 10]

A timelines service takes posts for later, and its worker stores them. At the end, each post that was accepted
has to be there once. The exit code is 1 if one is missing, or if a client saw an error.
"""

import argparse
import time
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import server_processes

from bench import seed
from bench.processes import Processes, wait_until
from bench.trials._load import main, started, take
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens

DATABASE = "microblog_timelines"


class Writer:
    """Queues posts, and remembers those that were accepted."""

    def __init__(self, port: int) -> None:
        token = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(hours=10)).issue("alice")
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}
        )
        self.close = self._client.close
        self.accepted: list[str] = []

    def write(self, number: int) -> str:
        response = self._client.post("/posts/async", json={"text": str(number)})
        if response.status_code == httpx.codes.ACCEPTED:
            self.accepted.append(response.json()["id"])
        return str(response.status_code)


def stored(port: int) -> list[str]:
    with closing(seed.connect(port, DATABASE)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT CAST(id AS text) FROM posts")
        return [row[0] for row in cursor.fetchall()]


def run(options: argparse.Namespace, stack: ExitStack) -> bool:
    """Whether all went as promised."""
    data = Path(stack.enter_context(TemporaryDirectory(prefix="microblog-try-")))
    one, other = (started(stack, server_processes.beanstalkd, data / name) for name in ("one", "other"))
    processes = stack.enter_context(Processes())
    postgres = processes.store(server_processes.postgres)
    processes.environment |= {
        "DB_PORT": str(postgres),
        "BEANSTALKD_HOST": f"127.0.0.1:{one.port},127.0.0.1:{other.port}",
    }
    service = processes.service("timelines", "-m", "timelines_service.app")
    processes.service("worker", "-m", "timelines_service.workers")
    writer = stack.enter_context(closing(Writer(service.port)))
    steps = [
        ("nothing", lambda: None),
        ("one is killed", one.kill),
        ("it is back", one.start),
        ("it is paused", one.hang),
        ("it goes on", one.resume),
    ]
    loads = take(steps, {"queued": writer.write}, options.rate, options.seconds)
    return _all_stored(writer.accepted, postgres) and all(
        set(load.outcomes["queued"]) == {"202"} for load in loads
    )


def _all_stored(accepted: list[str], postgres: int) -> bool:
    began = time.monotonic()
    wait_until(lambda: set(accepted) <= set(stored(postgres)), "the worker")
    late, found = time.monotonic() - began, stored(postgres)
    print(f"accepted {len(accepted)}, stored {len(found)}, the last {late:.1f} s after the load")
    return sorted(found) == sorted(accepted)


if __name__ == "__main__":
    main(run, __doc__, rate=20)
