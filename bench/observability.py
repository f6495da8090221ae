"""What it costs to observe the gateway and a service: metrics against none, traces against metrics; a scrape.

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

# By the name of a process and what it records: the process, and what it is sent.
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
    # The upstream takes spans, too: it answers anything.
    traces = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{upstream.port}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    }
    cases: dict[tuple[str, str], tuple[Running, Sequence[bytes]]] = {}
    for recorded, (variables, _, _) in SETTINGS.items():
        given = variables | (traces if RATIO in variables else {})
        gateway = processes.service("gateway", "gateway.py", **WHOLE, **given)
        service = processes.service("registry", "-m", "registry_service.app", **given)
        cases["gateway", recorded] = (gateway, REQUESTS)
        cases["service", recorded] = (service, OVERVIEW)
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
    for (name, recorded), (process, _) in cases.items():
        _, other, most = SETTINGS[recorded]
        if recorded != other:
            more = process.rss() - cases[name, other][0].rss()
            ours, theirs = costs[name, recorded], costs[name, other]
            rows.append((name, recorded, other, ratio(ours, theirs), most, more, median(theirs) * 1e6))
    table(("process", "with", "against", "CPU", "reach <=", "MB more", "us against"), rows)
    print(f"\nOf metrics, at most {MEGABYTES} MB more, and {SCRAPE_MS} ms a scrape:")
    scrapes = [(name, _scrape(cases[name, "metrics"][0])) for name in ("gateway", "service")]
    table(("process", "scrape, ms"), scrapes)


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
