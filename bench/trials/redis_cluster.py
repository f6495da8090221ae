"""A likes service on a Redis Cluster of six, under load: a master is killed, another hangs, a slot moves.

    bin/try redis-cluster [--seconds 12]

Every like that was answered with success is looked for afterwards, where its post is and in its user's list.
Nodes count as failed after a second; Redis's own default is 15.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from uuid import UUID

import httpx
import server_processes
from redis.crc import key_slot

from bench.processes import Processes
from bench.report import progress, table
from common.fields import new_id
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from likes_service.keys import Keys
from likes_service.store import LikesStore
from tests.own_server import own_servers
from tests.redis_cluster import RedisCluster

CLIENTS = 4
STRIKE_AFTER_SECONDS = 2.0
# More than any client would wait.
CLIENT_SECONDS = 30.0
KEYS = Keys(is_split=True)
POSTS = [new_id() for _ in range(256)]
TOKENS = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(hours=10))
HEAD = [
    "what is done", "liked", "503", "other errors", "longest wait, s", "refusals for, s", "likes lost",
    "lists left to the worker", "lists wrong",
]  # fmt: skip


@dataclass
class Findings:
    """What the clients have seen."""

    likes: list[tuple[UUID, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    refused_at: list[float] = field(default_factory=list)
    longest: float = 0.0

    def add(self, response: httpx.Response, like: tuple[UUID, str]) -> None:
        self.longest = max(self.longest, response.elapsed.total_seconds())
        if response.is_success:
            self.likes.append(like)
            return
        is_proper = response.status_code == 503 and "Retry-After" in response.headers
        self.errors["503" if is_proper else "other"] += 1
        self.refused_at.append(time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bin/try redis-cluster", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="of load for each of the three")
    seconds = parser.parse_args().seconds
    with (
        TemporaryDirectory(prefix="microblog-trial-") as folder,
        own_servers(Path(folder)) as own,
        Processes() as processes,
    ):
        cluster = RedisCluster(own)
        beanstalkd = processes.store(server_processes.beanstalkd)
        service = processes.service(
            "likes", "-m", "likes_service.app", REDIS_URL=cluster.url, BEANSTALKD_PORT=str(beanstalkd)
        )
        rows = []
        for number, (name, strike) in enumerate(TRIALS.items()):
            progress(number, len(TRIALS), name)
            cluster.fail_over_soon()
            findings = _load(service.port, seconds, partial(strike, cluster))
            cluster.mend()
            rows.append((name, *_row(cluster, findings)))
        progress(len(TRIALS), len(TRIALS), "done")
        table(HEAD, rows)


def _kill(cluster: RedisCluster) -> None:
    cluster.masters()[0].kill()


def _hang(cluster: RedisCluster) -> None:
    master = cluster.masters()[0]
    master.hang()
    time.sleep(5.0)  # longer than its replica takes to take over
    master.resume()


def _move(cluster: RedisCluster) -> None:
    key = KEYS.likers(POSTS[0])
    source = cluster.master_of(key)
    target = next(master for master in cluster.masters() if master is not source)
    cluster.begin_move(key_slot(key.encode()), source, target)
    cluster.end_move(key_slot(key.encode()), source, target)


TRIALS: dict[str, Callable[[RedisCluster], None]] = {
    "kill -9 of a master": _kill,
    "a master hangs for 5 s": _hang,
    "a bucket moves": _move,
}


def _load(port: int, seconds: float, strike: Callable[[], None]) -> Findings:
    """Likes as fast as the service takes them, each of another user."""
    findings, numbers, is_over = Findings(), count(time.time_ns() // 1_000_000), Event()

    def like() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=CLIENT_SECONDS) as client:
            while not is_over.is_set():
                number = next(numbers)
                one = POSTS[number % len(POSTS)], f"user{number}"
                token = {"Authorization": f"Bearer {TOKENS.issue(one[1])}"}
                findings.add(client.post(f"/likes/{one[0]}", headers=token), one)

    with ThreadPoolExecutor(CLIENTS) as clients:
        loads = [clients.submit(like) for _ in range(CLIENTS)]
        time.sleep(STRIKE_AFTER_SECONDS)
        strike()
        time.sleep(max(seconds - STRIKE_AFTER_SECONDS, 0))
        is_over.set()
        for load in loads:
            load.result()
    return findings


def _row(cluster: RedisCluster, findings: Findings) -> tuple[object, ...]:
    with closing(LikesStore.connect(cluster.url)) as store:
        lost = [like for like in findings.likes if not store.counts([like[0]], like[1])[0].liked]
        late = [like for like in findings.likes if not _is_listed(store, like)]
        for like in late:
            store.pending(*like)  # as the worker does before it validates a like
        wrong = [like for like in late if _is_listed(store, like) == (like in lost)]
    refused = findings.refused_at
    outage = refused[-1] - refused[0] if refused else 0.0
    errors = findings.errors
    return (
        len(findings.likes), errors["503"], errors["other"], findings.longest, outage, len(lost), len(late),
        len(wrong),
    )  # fmt: skip


def _is_listed(store: LikesStore, like: tuple[UUID, str]) -> bool:
    return [one.post_id for one in store.liked_by(like[1], 1)] == [like[0]]


if __name__ == "__main__":
    main()
