"""What measuring costs: the gateway and a service, with METRICS on against off; and a scrape.

.venv/bin/python -m bench.observability [--rounds 15] [--seconds 1]
"""

import argparse
import time
import urllib.request
from collections.abc import Mapping, Sequence
from statistics import median

from bench.gateway import REQUESTS, WHOLE, registered
from bench.load import Load, request
from bench.processes import Processes, Running
from bench.report import progress, ratio, table

CONNECTIONS = 16
LIST = [request("GET", "/services")]
CPU, MEGABYTES, SCRAPE_MS = 1.04, 6.0, 20.0
SCRAPES = 20

# By the name of a process and whether it measures: the process, and what it is sent.
Cases = Mapping[tuple[str, str], tuple[Running, Sequence[bytes]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    with Processes() as processes, Load() as load:
        registry = processes.service("registry", "-m", "registry_service.app")
        upstream = processes.baseline("proxies:upstream")
        with registered(registry, upstream):
            cases = _start(processes, registry, upstream)
            _print(cases, _costs(load, cases, options.rounds, options.seconds))


def _start(processes: Processes, registry: Running, upstream: Running) -> Cases:
    processes.environment |= {
        "UPSTREAM_PORT": str(upstream.port),
        "REGISTRY_URL": f"http://127.0.0.1:{registry.port}",
    }
    cases: dict[tuple[str, str], tuple[Running, Sequence[bytes]]] = {}
    for metrics in ("true", "false"):
        gateway = processes.service("gateway", "gateway.py", METRICS=metrics, **WHOLE)
        service = processes.service("registry", "-m", "registry_service.app", METRICS=metrics)
        cases["gateway", metrics] = (gateway, REQUESTS)
        cases["service", metrics] = (service, LIST)
    return cases


def _costs(load: Load, cases: Cases, rounds: int, seconds: float) -> dict[tuple[str, str], list[float]]:
    """Seconds of CPU a request, in every round."""
    costs: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for done in range(rounds):
        for case, (process, requests) in cases.items():
            progress(done, rounds, " ".join(case))
            before = process.cpu()
            responses = load.closed(process.port, requests, CONNECTIONS, seconds).result()
            assert not responses.errors, responses.statuses
            costs[case].append((process.cpu() - before) / responses.count)
    progress(rounds, rounds, "done")
    return costs


def _print(cases: Cases, costs: Mapping[tuple[str, str], list[float]]) -> None:
    rows = []
    for name in ("gateway", "service"):
        on, off = costs[name, "true"], costs[name, "false"]
        process, idle = cases[name, "true"][0], cases[name, "false"][0]
        more = process.rss() - idle.rss()
        cells = (ratio(on, off), CPU, more, MEGABYTES, _scrape(process), SCRAPE_MS)
        rows.append((name, *cells, median(off) * 1e6))
    head = (
        "METRICS on, against off",
        "CPU",
        "reach <=",
        "MB more",
        "reach <=",
        "scrape, ms",
        "reach <=",
        "us off",
    )
    table(head, rows)


def _scrape(process: Running) -> float:
    """Milliseconds for a scrape, the median of some."""
    times = []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics").read()
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


if __name__ == "__main__":
    main()
