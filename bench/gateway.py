"""The gateway against the usual FastAPI and httpx proxy, and against the least that Python can do.

    .venv/bin/python -m bench.gateway [--rounds 7] [--seconds 1]

As people start it, the gateway also counts what each client asks for, and logs it; bare, it does neither.
"""

import argparse
import json
import urllib.request
from collections.abc import Mapping
from statistics import median

from bench.load import Load, request
from bench.processes import Processes, Running
from bench.report import progress, ratio, table

CONNECTIONS = (16, 64)
REQUESTS = [request("GET", "/posts/id/019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e")]

BARE = {"RATE_LIMIT": "off", "LOG_LEVEL": "warning"}
# Everything is counted, and nothing refused.
WHOLE = {"RATE_LIMIT": "1000000/s burst 1000000"}

# CPU a request at most so many times, throughput at least so many times that of...
TARGETS = {"usual": (1 / 6, 6.0), "least": (2.0, 0.55)}


def register(registry: Running, upstream: Running) -> None:
    """For one more lease; nobody sends heartbeats for it."""
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
        register(registry, upstream)
        processes.environment |= {
            "UPSTREAM_PORT": str(upstream.port),
            "REGISTRY_URL": f"http://127.0.0.1:{registry.port}",
        }
        proxies = {
            "bare": processes.service("gateway", "gateway.py", **BARE),
            "whole": processes.service("gateway", "gateway.py", **WHOLE),
            "usual": processes.baseline("proxies:usual"),
            "least": processes.baseline("proxies:least"),
        }
        costs: Costs = {(name, count): [] for name in proxies for count in CONNECTIONS}
        for done in range(options.rounds):
            for name, count in costs:
                register(registry, upstream)
                progress(done, options.rounds, f"{name}, {count} connections")
                costs[name, count].append(_measure(load, proxies[name], count, options.seconds))
        progress(options.rounds, options.rounds, "done")
    _print(costs)


# Of every round: seconds of CPU a request, requests a second.
Costs = Mapping[tuple[str, int], list[tuple[float, float]]]


def _measure(load: Load, proxy: Running, connections: int, seconds: float) -> tuple[float, float]:
    before = proxy.cpu()
    answers = load.closed(proxy.port, REQUESTS, connections, seconds).result()
    assert not answers.errors, answers.statuses
    return (proxy.cpu() - before) / answers.count, answers.rate


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
