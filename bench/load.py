"""Clients that ask as fast as they are answered, or as often as they are told, in a process of their own."""

import asyncio
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any, Self

import uvloop

# Nobody waits longer for an answer.
PATIENCE_SECONDS = 10.0


def request(
    method: str, path: str, token: str | None = None, body: bytes = b"", kind: str = "application/json"
) -> bytes:
    """The bytes of an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Answers:
    """What came back: seconds from when each request was due, by kind, and how often which status."""

    elapsed: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return self.statuses.total()

    @property
    def errors(self) -> int:
        """Answers that are no success; 0 is the status of a request without an answer."""
        return sum(count for status, count in self.statuses.items() if not 200 <= status < 400)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.count / self.elapsed

    def add(self, status: int, seconds: float, kind: str = "") -> None:
        self.statuses[status] += 1
        self.latencies.setdefault(kind, []).append(seconds)

    def percentile(self, percent: float, kind: str | None = None) -> float:
        """Milliseconds."""
        lists = self.latencies.values() if kind is None else [self.latencies.get(kind, [])]
        times = sorted(itertools.chain.from_iterable(lists))
        return times[min(int(len(times) * percent / 100), len(times) - 1)] * 1000 if times else 0.0


class Connection(asyncio.Protocol):
    """A kept-alive connection with one request at a time on it. Answers need a Content-Length."""

    def __init__(self) -> None:
        self._received = b""
        self.body = b""  # of the last answer
        self._answered: Callable[[int], None] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, request: bytes, answered: Callable[[int], None]) -> None:
        """Send a request; `answered` is called with the status, or with 0 when the connection breaks off."""
        assert self._transport
        self._answered = answered
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and len(body) >= _length(head):
            self._received, self.body = b"", body
            self._finish(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(0)

    def close(self) -> None:
        self._answered = None
        if self._transport:
            self._transport.close()

    def _finish(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered:
            answered(status)


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def _connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def _closed(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    answers = Answers()
    open_connections = [await _connect(port) for _ in range(connections)]
    upcoming = itertools.cycle(requests)
    started = time.perf_counter()
    for connection in open_connections:
        _ask_again(connection, upcoming, answers, started + seconds)
    await asyncio.sleep(seconds)
    answers.elapsed = time.perf_counter() - started
    for connection in open_connections:
        connection.close()
    return answers


def _ask_again(connection: Connection, upcoming: Iterator[bytes], answers: Answers, until: float) -> None:
    began = time.perf_counter()

    def answered(status: int) -> None:
        now = time.perf_counter()
        answers.add(status, now - began)
        if status and now < until:
            _ask_again(connection, upcoming, answers, until)

    connection.ask(next(upcoming), answered)


class _OpenLoop:
    """Requests that come when they come, whether or not the last ones have been answered."""

    def __init__(self, port: int, rate: float, connections: int, seed: int) -> None:
        self._port = port
        self._rate = rate
        self._left = connections
        self._random = random.Random(seed)
        self._idle: list[Connection] = []
        self._waiting: deque[tuple[float, str, bytes]] = deque()
        self.answers = Answers()

    async def run(self, requests: Sequence[tuple[str, bytes]], seconds: float) -> Answers:
        loop = asyncio.get_running_loop()
        self._idle = [await _connect(self._port) for _ in range(self._left)]
        begin = due = loop.time()
        sent = 0
        for kind, text in itertools.cycle(requests):
            due += self._random.expovariate(self._rate)
            if due > begin + seconds:
                break
            if (pause := due - loop.time()) > 0:
                await asyncio.sleep(pause)
            sent += 1
            self._waiting.append((due, kind, text))
            self._send()
        while self.answers.count < sent and loop.time() < begin + seconds + PATIENCE_SECONDS:
            await asyncio.sleep(0.01)
        self.answers.statuses[0] += sent - self.answers.count
        self.answers.elapsed = seconds
        for connection in self._idle:
            connection.close()
        return self.answers

    def _send(self) -> None:
        while self._waiting and self._idle:
            connection = self._idle.pop()
            due, kind, text = self._waiting.popleft()
            connection.ask(text, self._answered(connection, due, kind))

    def _answered(self, connection: Connection, due: float, kind: str) -> Callable[[int], None]:
        def answered(status: int) -> None:
            self.answers.add(status, asyncio.get_running_loop().time() - due, kind)
            if status:
                self._idle.append(connection)
            self._send()

        return answered


def _run_closed(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Answers:
    return uvloop.run(_closed(port, requests, connections, seconds))


def _run_open(
    port: int, requests: Sequence[tuple[str, bytes]], rate: float, seconds: float, connections: int, seed: int
) -> Answers:
    return uvloop.run(_OpenLoop(port, rate, connections, seed).run(requests, seconds))


class Load:
    """Two processes for clients, so that what they cost is not the benchmark's, and two loads can meet."""

    def __enter__(self) -> Self:
        self._clients = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
        return self

    def __exit__(self, *exc: object) -> None:
        self._clients.shutdown()

    def closed(
        self, port: int, requests: Sequence[bytes], connections: int, seconds: float
    ) -> Future[Answers]:
        """Each connection asks as soon as it is answered, in turn through the requests."""
        return self._clients.submit(_run_closed, port, requests, connections, seconds)

    def open(
        self,
        port: int,
        requests: Sequence[tuple[str, bytes]],
        rate: float,
        seconds: float,
        connections: int = 256,
        seed: int = 1,
    ) -> Future[Answers]:
        """So many requests a second, at random moments; latency counts from the moment each was due."""
        return self._clients.submit(_run_open, port, requests, rate, seconds, connections, seed)
