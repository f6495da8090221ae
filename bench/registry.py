"""What a registry costs when it has many instances and watchers, and how soon all of these see a change.

    .venv/bin/python -m bench.registry [--instances 5000] [--watchers 200] [--changes 2] [--seconds 20]

One real registry. A process has the instances: each registers, and sends its heartbeats on a connection of
its own. Another process has the watchers: each waits for changes as the directory in every process does. A
change is an instance that reports another status.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Self
from urllib.parse import urlencode

import uvloop

from bench.load import Answers, Connection, request
from bench.processes import Processes, Running
from bench.report import progress, table
from common.discovery.models import HEARTBEAT_SECONDS
from common.server.run import allow_connections

CPU_PERCENT, SEEN_MILLISECONDS = 25.0, 1000.0
SERVICES = 10
WATCH_SECONDS = 20
# Of the load's processes; then instances register; then the last one has sent its first heartbeats.
START_SECONDS, RAMP_SECONDS, SETTLE_SECONDS = 2, 15, 2 * HEARTBEAT_SECONDS

# When each instance changed, or a watcher saw that, on the clock that all processes share.
Times = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What the processes of the load do, and when."""

    port: int
    instances: int
    watchers: int
    changes: float
    begin: float
    measure: float
    end: float


class Client(Connection):
    """A connection that asks for one thing after the other."""

    @classmethod
    async def connect(cls, port: int) -> Self:
        _, client = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return client

    async def call(self, text: bytes) -> bytes:
        """The body of the response. Raises ConnectionError for a refusal, or without a response."""
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ask(text, answered.set_result)
        if not 200 <= await answered < 300:
            raise ConnectionError(self.body)
        return self.body


class Instance:
    """One that registers, and then says every few seconds how it is."""

    def __init__(self, number: int) -> None:
        name, host = f"service-{number % SERVICES}", f"10.0.{number // 256}.{number % 256}"
        self._place = {"service_name": name, "host": host, "port": 5100}
        self._status = "up"
        self.instance_id = ""
        self.beats = 0

    async def live(self, plan: Plan, begin: float) -> None:
        await _sleep_until(begin)
        self._client = await Client.connect(plan.port)
        lease = await self._client.call(_post("/register", self._place))
        self.instance_id = json.loads(lease)["instance_id"]
        for due in itertools.count(time.monotonic() + HEARTBEAT_SECONDS, HEARTBEAT_SECONDS):
            if due > plan.end:
                return
            await _sleep_until(due)
            await self._client.call(self._heartbeat())
            self.beats += due > plan.measure

    async def change(self, client: Client) -> float:
        """Report another status, on another connection; the time at which it is sent."""
        self._status, sent = "degraded", time.monotonic()
        await client.call(self._heartbeat())
        return sent

    def _heartbeat(self) -> bytes:
        return _post(f"/heartbeat/{self.instance_id}", {"status": self._status})


def _post(path: str, body: object) -> bytes:
    return request("POST", path, body=json.dumps(body).encode())


async def _sleep_until(due: float) -> None:
    await asyncio.sleep(due - time.monotonic())


async def _instances(plan: Plan) -> tuple[Times, int]:
    """The changes, and how many heartbeats had a response while it was measured."""
    instances = [Instance(number) for number in range(plan.instances)]
    apart = RAMP_SECONDS / plan.instances
    begins = itertools.count(plan.begin, apart)
    lives = asyncio.gather(*(one.live(plan, begin) for one, begin in zip(instances, begins, strict=False)))
    changes = asyncio.create_task(_change(plan, instances))
    await lives
    return await changes, sum(one.beats for one in instances)


async def _change(plan: Plan, instances: Sequence[Instance]) -> Times:
    """One instance after the other, none twice, while it is measured."""
    await _sleep_until(plan.measure)
    client = await Client.connect(plan.port)
    times: Times = {}
    # The last ones have the time to be seen.
    while time.monotonic() < plan.end - 2:
        instance = instances[len(times)]
        times[instance.instance_id] = await instance.change(client)
        await asyncio.sleep(1 / plan.changes)
    return times


async def _watchers(plan: Plan) -> list[Times]:
    await _sleep_until(plan.begin)
    client = await Client.connect(plan.port)
    first = json.loads(await client.call(request("GET", "/services")))
    seen: list[Times] = [{} for _ in range(plan.watchers)]
    tasks = [asyncio.create_task(_watch(plan.port, first, each)) for each in seen]
    await _sleep_until(plan.end)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return seen


async def _watch(port: int, news: Any, seen: Times) -> None:
    with closing(await Client.connect(port)) as client:
        while True:
            position = {"epoch": news["epoch"], "version": news["version"], "wait": WATCH_SECONDS}
            query = urlencode(position | {"changes": "true"})
            news = json.loads(await client.call(request("GET", f"/services?{query}")))
            now = time.monotonic()
            seen |= {one["instance_id"]: now for one in news["changed"]}


def _run_instances(plan: Plan) -> tuple[Times, int]:
    allow_connections(plan.instances)
    return uvloop.run(_instances(plan))


def _run_watchers(plan: Plan) -> list[Times]:
    allow_connections(plan.watchers)
    return uvloop.run(_watchers(plan))


def _delays(changed: Times, seen: Sequence[Times]) -> Answers:
    """From each change until the last watcher has seen it."""
    delays = Answers()
    for instance, at in changed.items():
        times = [each[instance] for each in seen if each.get(instance, 0) >= at]
        delays.add(200 if len(times) == len(seen) else 0, max(times, default=at) - at)
    return delays


def measure(registry: Running, options: argparse.Namespace) -> tuple[float, float, Answers]:
    """Its CPU in percent of a core, the heartbeats a second, and how long changes took."""
    begin = time.monotonic() + START_SECONDS
    start = begin + RAMP_SECONDS + SETTLE_SECONDS
    end = start + options.seconds
    plan = Plan(registry.port, options.instances, options.watchers, options.changes, begin, start, end)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as load:
        instances, watchers = load.submit(_run_instances, plan), load.submit(_run_watchers, plan)
        _wait(start, "registering")
        before = registry.cpu()
        _wait(end, "measuring")
        cpu = (registry.cpu() - before) / options.seconds * 100
        changed, beats = instances.result()
        return cpu, beats / options.seconds, _delays(changed, watchers.result())


def _wait(until: float, what: str) -> None:
    seconds = round(until - time.monotonic())
    for second in range(seconds):
        progress(second, seconds, what)
        time.sleep(max(0, min(1, until - time.monotonic())))
    progress(seconds, seconds, what)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--watchers", type=int, default=200)
    parser.add_argument("--changes", type=float, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with Processes() as processes:
        registry = processes.service("registry", "-m", "registry_service.app")
        cpu, beats, delays = measure(registry, options)
        memory = registry.rss()
    table(
        ("a registry", "measured", "reach <="),
        [
            ("% of a core", cpu, CPU_PERCENT),
            ("RSS, MB", memory, ""),
            ("heartbeats a second", beats, ""),
            ("changes", delays.count, ""),
            ("changes that some watcher missed", delays.errors, 0),
            ("ms until all watchers see a change, median", delays.percentile(50), ""),
            ("ms until all watchers see a change, p99", delays.percentile(99), SEEN_MILLISECONDS),
        ],
    )


if __name__ == "__main__":
    main()
