"""The gateway against the usual FastAPI and httpx proxy, and against the least that Python can do.

    .venv/bin/python -m bench.gateway [--rounds 7] [--seconds 1]

Whole, as people start it, the gateway counts and logs each request; bare, it does neither.
"""

import argparse
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from threading import Event, Thread

from bench.load import Load, request
from bench.processes import Processes, Running
from bench.report import progress, ratio, table
from common.discovery.models import HEARTBEAT_SECONDS

CONNECTIONS = (16, 64)
REQUESTS = [request("GET", "/posts/id/019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e")]

BARE = {"RATE_LIMIT": "off", "LOG_LEVEL": "warning"}
# Everything is counted, and nothing refused.
WHOLE = {"RATE_LIMIT": "1000000/s burst 1000000"}

# CPU a request at most so many times, throughput at least so many times that of...
TARGETS = {"usual": (1 / 6, 6.0), "least": (1.5, 0.55)}


# Of every round: seconds of CPU a request, requests a second.
Costs = Mapping[tuple[str, int], list[tuple[float, float]]]


@contextmanager
def registered(registry: Running, upstream: Running) -> Iterator[None]:
    """Keep the upstream listed: it sends no heartbeats itself."""
    stop = Event()

    def keep() -> None:
        _register(registry, upstream)
        while not stop.wait(HEARTBEAT_SECONDS):
            _register(registry, upstream)

    thread = Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _register(registry: Running, upstream: Running) -> None:
    instance = {"service_name": "timelines", "host": "127.0.0.1", "port": upstream.port}
    call = urllib.request.Request(
        f"http://127.0.0.1:{registry.port}/register",
        json.dumps(instance).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(call).close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    with Processes() as processes, Load() as load:
        registry = processes.service("registry", "-m", "registry_service.app")
        upstream = processes.baseline("proxies:upstream")
        with registered(registry, upstream):
            proxies = _start(processes, registry, upstream)
            _print(_compare(load, proxies, options.rounds, options.seconds))


def _start(processes: Processes, registry: Running, upstream: Running) -> dict[str, Running]:
    processes.environment |= {
        "UPSTREAM_PORT": str(upstream.port),
        "REGISTRY_URL": f"http://127.0.0.1:{registry.port}",
    }
    return {
        "bare": processes.service("gateway", "gateway.py", **BARE),
        "whole": processes.service("gateway", "gateway.py", **WHOLE),
        "usual": processes.baseline("proxies:usual"),
        "least": processes.baseline("proxies:least"),
    }


def _compare(load: Load, proxies: Mapping[str, Running], rounds: int, seconds: float) -> Costs:
    costs: Costs = {(name, count): [] for name in proxies for count in CONNECTIONS}
    for done in range(rounds):
        for name, count in costs:
            progress(done, rounds, f"{name}, {count} connections")
            costs[name, count].append(_measure(load, proxies[name], count, seconds))
    progress(rounds, rounds, "done")
    return costs


def _measure(load: Load, proxy: Running, connections: int, seconds: float) -> tuple[float, float]:
    before = proxy.cpu()
    responses = load.closed(proxy.port, REQUESTS, connections, seconds).result()
    assert not responses.errors, responses.statuses
    return (proxy.cpu() - before) / responses.count, responses.rate


def _print(costs: Costs) -> None:
    rows = []
    for ours in ("bare", "whole"):
        for count in CONNECTIONS:
            for against, (most, least) in TARGETS.items():
                our_cpu, our_rate = zip(*costs[ours, count], strict=True)
                cpu, rate = zip(*costs[against, count], strict=True)
                cells = (ratio(our_cpu, cpu), most, ratio(our_rate, rate), least)
                rows.append((ours, against, count, *cells, median(our_cpu) * 1e6, median(our_rate)))
    head = ("gateway", "against", "connections", "CPU", "reach <=", "throughput", "reach >=", "us", "req/s")
    table(head, rows)


if __name__ == "__main__":
    main()
