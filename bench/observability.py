"""What it costs to observe the gateway and a service: metrics against none, traces against metrics; a scrape.

Two processes of the same program differ by some percent, each for as long as it runs. So all are started
many times: the ratio is the average of these starts, with its standard error.

.venv/bin/python -m bench.observability [--starts 16] [--rounds 8] [--seconds 0.2]
"""

import argparse
import random
import time
import urllib.request
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from math import sqrt
from statistics import mean, median, stdev
from typing import NamedTuple, TypeVar

from bench.gateway import REQUESTS, WHOLE, registered
from bench.load import Load, request
from bench.processes import Processes, Running
from bench.report import progress, ratio, table

CONNECTIONS = 16
OVERVIEW = [request("GET", "/")]
MEGABYTES, SCRAPE_MS = 6.0, 20.0
SCRAPES = 20

RATIO = "OTEL_TRACES_SAMPLER_ARG"
# Each with what it is compared with, and the most CPU that it may take, in times of that.
SETTINGS: dict[str, tuple[dict[str, str], str, float]] = {
    "nothing": ({"METRICS": "false"}, "nothing", 1.0),
    "metrics": ({}, "nothing", 1.04),
    "traces of 1%": ({RATIO: "0.01"}, "metrics", 1.03),
    "traces of all": ({RATIO: "1"}, "metrics", 2.0),
}

Item = TypeVar("Item")

# The name of a process, and what it records.
Case = tuple[str, str]
# By case: the process, and what it is sent.
Cases = Mapping[Case, tuple[Running, Sequence[bytes]]]


class Cost(NamedTuple):
    """What one start of a case takes: seconds of CPU a request, in times of the other's, MB, ms a scrape."""

    cpu: float
    ratio: float
    rss: float
    scrape_ms: float


# By case, every start.
Measured = dict[Case, list[Cost]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.2)
    options = parser.parse_args()
    measured: Measured = defaultdict(list)
    with Load() as load:
        for start in range(options.starts):
            with Processes() as processes:
                registry = processes.service("registry", "-m", "registry_service.app")
                upstream = processes.baseline("proxies:upstream")
                with registered(registry, upstream):
                    cases = _start(processes, registry, upstream)
                    progress(start, options.starts, "starts")
                    _measure(load, cases, options.rounds, options.seconds, measured)
    progress(options.starts, options.starts, "starts")
    _print(measured)


def _start(processes: Processes, registry: Running, upstream: Running) -> Cases:
    processes.environment |= {
        "UPSTREAM_PORT": str(upstream.port),
        "REGISTRY_URL": f"http://127.0.0.1:{registry.port}",
    }
    # The upstream takes spans, too: it answers anything.
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{upstream.port}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    }
    cases: dict[Case, tuple[Running, Sequence[bytes]]] = {}
    for recorded, (variables, _, _) in _shuffled(SETTINGS.items()):
        given = variables | (traces if RATIO in variables else {})
        gateway = processes.service("gateway", "gateway.py", **WHOLE, **given)
        service = processes.service("registry", "-m", "registry_service.app", **given)
        cases["gateway", recorded] = (gateway, REQUESTS)
        cases["service", recorded] = (service, OVERVIEW)
    return cases


def _measure(load: Load, cases: Cases, rounds: int, seconds: float, measured: Measured) -> None:
    costs = defaultdict(list)
    for _ in range(rounds):
        for case, (process, requests) in _shuffled(cases.items()):
            before = process.cpu()
            responses = load.closed(process.port, requests, CONNECTIONS, seconds).result()
            assert not responses.errors, responses.statuses
            costs[case].append((process.cpu() - before) / responses.count)
    for case, (process, _) in cases.items():
        name, recorded = case
        theirs = costs[name, SETTINGS[recorded][1]]
        scrape = _scrape(process) if recorded == "metrics" else 0.0
        cost = Cost(median(costs[case]), ratio(costs[case], theirs), process.rss(), scrape)
        measured[case].append(cost)


def _print(measured: Mapping[Case, Sequence[Cost]]) -> None:
    rows, scrapes = [], []
    for name, recorded in product(("gateway", "service"), SETTINGS):
        _, other, most = SETTINGS[recorded]
        ours = measured[name, recorded]
        theirs = measured[name, other]
        if recorded != other:
            ratios = [cost.ratio for cost in ours]
            more = mean(cost.rss for cost in ours) - mean(cost.rss for cost in theirs)
            us = mean(cost.cpu for cost in theirs) * 1e6
            error = stdev(ratios) / sqrt(len(ratios))
            rows.append((name, recorded, other, mean(ratios), error, most, more, us))
        if recorded == "metrics":
            scrapes.append((name, median(cost.scrape_ms for cost in ours)))
    table(("process", "with", "against", "CPU", "±", "reach <=", "MB more", "us against"), rows)
    print(f"\nOf metrics, at most {MEGABYTES} MB more, and {SCRAPE_MS} ms a scrape:")
    table(("process", "scrape, ms"), scrapes)


def _shuffled(items: Collection[Item]) -> list[Item]:
    """In another order each time: what starts or answers first after a pause is at a disadvantage."""
    return random.sample(list(items), len(items))


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
