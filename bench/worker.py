"""The timelines worker: many posts in one transaction against one at a time, and how fast a backlog goes.

    .venv/bin/python -m bench.worker [--jobs 3000] [--backlog 10000] [--rounds 3]

Each time counts from the start of the work until the queue is empty and every post is stored.
"""

import argparse
import time
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from statistics import median
from threading import Event, Thread
from typing import cast

import greenstalk
import server_processes

from bench import seed
from bench.processes import Processes, wait_until
from bench.report import progress, ratio, table
from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.fields import new_id
from common.jobs.queue import JobQueue
from common.jobs.worker import prepare, work
from common.telemetry import context
from common.tokens import Tokens
from timelines_service.clients import UsersClient
from timelines_service.models import TUBE, Post
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore
from timelines_service.workers import BATCH, save

BACKLOG_SECONDS, FACTOR = 15, 2.5


def fill(queue: JobQueue, jobs: int) -> None:
    context.start()
    for number in range(jobs):
        queue.put(Post(id=new_id(), username=seed.name(number), text=seed.TEXT, created_at=datetime.now(UTC)))


def drain(settings: TimelinesSettings, jobs: int, batch: int) -> float:
    """Seconds that a worker takes for so many jobs."""
    queue = JobQueue.connect(*settings.beanstalkds[0], TUBE)
    fill(queue, jobs)
    store, stop = TimelinesStore.connect(settings.database), Event()
    prepare(store.prepare, store.outages, stop)
    began = time.monotonic()
    # No post mentions anybody, so the users service is not asked.
    users = UsersClient(ServiceClient("users", Directory(None), Tokens.from_settings(settings), "timelines"))
    worker = Thread(target=work, args=[[queue], partial(save, store, users), store.outages, stop, batch])
    worker.start()
    wait_until(partial(_is_empty, settings), "the worker")
    seconds = time.monotonic() - began
    stop.set()
    worker.join()
    queue.close()
    store.close()
    return seconds


def _is_empty(settings: TimelinesSettings) -> bool:
    with greenstalk.Client((settings.beanstalkd_host, settings.beanstalkd_port)) as client:
        stats = client.stats_tube(TUBE)
        return stats["current-jobs-ready"] + stats["current-jobs-reserved"] == 0


def count(settings: TimelinesSettings) -> int:
    with closing(seed.connect(settings.db_port, settings.timelines_db_name)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM posts")
        return cast("int", cursor.fetchone()[0])


def measure(
    settings: TimelinesSettings, options: argparse.Namespace
) -> tuple[list[float], list[float], float]:
    one_by_one, together = [], []

    def step(done: int, what: str) -> None:
        progress(done, options.rounds + 1, what)

    for done in range(options.rounds):
        step(done, "one at a time")
        one_by_one.append(drain(settings, options.jobs, 1))
        step(done, "in batches")
        together.append(drain(settings, options.jobs, BATCH))
    step(options.rounds, f"a backlog of {options.backlog}")
    backlog = drain(settings, options.backlog, BATCH)
    step(options.rounds + 1, "done")
    return one_by_one, together, backlog


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with Processes() as processes:
        settings = TimelinesSettings(
            db_port=processes.store(server_processes.postgres),
            beanstalkd_port=processes.store(server_processes.beanstalkd),
        )
        one_by_one, together, backlog = measure(settings, options)
        assert count(settings) == 2 * options.rounds * options.jobs + options.backlog, "posts are missing"
    rates = [options.jobs / median(times) for times in (together, one_by_one)]
    table(
        ("worker", "measured", "reach"),
        [
            (f"batches of {BATCH}, times one at a time", ratio(one_by_one, together), f">= {FACTOR}"),
            (f"a backlog of {options.backlog}, seconds", backlog, f"< {BACKLOG_SECONDS}"),
            ("jobs a second in batches", rates[0], ""),
            ("jobs a second one at a time", rates[1], ""),
        ],
    )


if __name__ == "__main__":
    main()
