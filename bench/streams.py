"""What live streams cost, and how soon an event comes.

.venv/bin/python -m bench.streams [--seconds 30]

A thousand idle home streams pass through a gateway to one timelines service. Then five instances of it have
fifty public streams, while 100 posts a second are written. 1 is the limit.
"""

import argparse
import asyncio
import json
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import server_processes
import uvloop

from bench.load import request
from bench.processes import Processes, Running
from bench.report import progress, table
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens

USERS, STREAMS, LISTENERS = 10, 1000, 50
INSTANCES = 5
POSTS_A_SECOND = 100
# Within ten of them, the timers end that bound how long a client takes for its request.
SETTLE_SECONDS = 12
MEGABYTES, CORE_PERCENT, MILLISECONDS = 50.0, 2.0, 200.0


class Client:
    """One stream, which notes how old each post is when it comes, in milliseconds."""

    def __init__(self) -> None:
        self.ages: list[float] = []

    async def listen(self, port: int, text: bytes) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(text)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head:
            raise ConnectionError(head.decode())
        self._task = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line.startswith(b"data:"):
                written_at = float(json.loads(line[5:])["text"])
                self.ages.append((time.time() - written_at) * 1000)

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()


async def _open(port: int, requests: Sequence[bytes], count: int) -> list[Client]:
    clients = [Client() for _ in range(count)]
    for number, client in enumerate(clients):
        await client.listen(port, requests[number % len(requests)])
    return clients


def _post(port: int, token: str) -> None:
    """Write a post that says when it was written: a little before its commit."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"text": repr(time.time())}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/posts", body, headers)
    urllib.request.urlopen(asked, timeout=10).close()


async def _write(port: int, token: str, seconds: int) -> None:
    loop = asyncio.get_running_loop()
    begin, writing = loop.time(), []
    for number in range(POSTS_A_SECOND * seconds):
        await asyncio.sleep(max(0.0, begin + number / POSTS_A_SECOND - loop.time()))
        writing.append(loop.run_in_executor(None, _post, port, token))
    await asyncio.gather(*writing)


async def _idle(running: Sequence[Running], tokens: Sequence[str], seconds: int) -> tuple[float, float]:
    """MB and % of a core that a thousand streams take."""
    gateway = running[-1].port
    memory, cpu = [one.rss() for one in running], [one.cpu() for one in running]
    await asyncio.sleep(seconds)
    without = [one.cpu() - was for one, was in zip(running, cpu, strict=True)]
    clients = await _open(gateway, [request("GET", "/stream", token) for token in tokens], STREAMS)
    await asyncio.sleep(SETTLE_SECONDS)
    cpu = [one.cpu() for one in running]
    await asyncio.sleep(seconds)
    with_streams = [one.cpu() - was for one, was in zip(running, cpu, strict=True)]
    grown = [one.rss() - was for one, was in zip(running, memory, strict=True)]
    for client in clients:
        await client.close()
    rows = zip(running, grown, with_streams, without, strict=True)
    table(
        ("process", "MB", "% of a core", "without"),
        [(one.name, mb, cpu / seconds * 100, rest / seconds * 100) for one, mb, cpu, rest in rows],
    )
    return sum(grown), (sum(with_streams) - sum(without)) / seconds * 100


async def _latency(ports: Sequence[int], token: str, seconds: int) -> list[float]:
    """The ages of all events that came, in order."""
    texts = [request("GET", "/stream?timeline=public")]
    clients = [one for port in ports for one in await _open(port, texts, LISTENERS // len(ports))]
    await _write(ports[0], token, seconds)
    await asyncio.sleep(1)
    for client in clients:
        await client.close()
    counts = {len(client.ages) for client in clients}
    if counts != {POSTS_A_SECOND * seconds}:
        raise AssertionError(f"some events are missing, or came twice: {counts}")
    return sorted(age for client in clients for age in client.ages)


def _register(port: int, username: str) -> None:
    body = json.dumps({"username": username, "password": "quiet river paper lantern"}).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/register", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(asked, timeout=10).close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=30)
    seconds: int = parser.parse_args().seconds
    names = [f"user{number}" for number in range(USERS)]
    signing = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(hours=1))
    tokens = [signing.issue(name) for name in names]
    with Processes() as processes:
        for store, variable in (
            (server_processes.postgres, "DB_PORT"),
            (server_processes.beanstalkd, "BEANSTALKD_PORT"),
        ):
            processes.environment[variable] = str(processes.store(store))
        registry = processes.service("registry", "-m", "registry_service.app")
        processes.environment["REGISTRY_URL"] = f"http://127.0.0.1:{registry.port}"
        users = processes.service("users", "-m", "users_service.app")
        timelines = [processes.service("timelines", "-m", "timelines_service.app")]
        gateway = processes.service("gateway", "gateway.py")
        for name in names:
            _register(users.port, name)
        progress(1, 3, f"{STREAMS} idle streams")
        megabytes, percent = uvloop.run(_idle([users, *timelines, gateway], tokens, seconds))
        timelines += [
            processes.service("timelines", "-m", "timelines_service.app") for _ in range(INSTANCES - 1)
        ]
        progress(2, 3, f"{POSTS_A_SECOND} posts a second")
        ages = uvloop.run(_latency([one.port for one in timelines], tokens[0], seconds))
        progress(3, 3, "done")
    p50, p99 = ages[len(ages) // 2], ages[int(len(ages) * 0.99)]
    print()
    table(
        ("streams", "measured", "of the limit"),
        [
            ("MB of 1,000 idle ones", megabytes, megabytes / MEGABYTES),
            ("% of a core of 1,000 idle ones", percent, percent / CORE_PERCENT),
            ("ms from a request to its event, p50", p50, p50 / MILLISECONDS),
            ("ms from a request to its event, p99", p99, p99 / MILLISECONDS),
        ],
    )


if __name__ == "__main__":
    main()
