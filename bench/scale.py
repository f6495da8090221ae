"""Two and three instances of each service against one, and two gateways on one port against one.

    .venv/bin/python -m bench.scale [--seconds 10]

Where every instance can have a core of its own, beside those of stores and load, throughput is measured.
Where it cannot, the CPU of a request is measured with one instance, and bench/queueing.py says what comes of
that on enough cores.
"""

import argparse
import os
import urllib.request
from collections.abc import Iterator, Mapping, Sequence

from bench import gateway as gateways
from bench import mixed
from bench.load import Load
from bench.processes import Processes, Running, wait_until
from bench.queueing import CLIENTS, PROCESSES, STORES, Demands, Suite
from bench.report import progress, table
from common.discovery.registration import PROCESS_ID_HEADER

INSTANCES = (1, 2, 3)
EFFICIENCY, TWO_GATEWAYS = 0.85, 1.8
# For the stores, and for the load.
OTHER_CORES = 4
# Of each kind, while it is calibrated: some tenths of what one instance takes.
CALIBRATION_RATE = 60.0
CONNECTIONS, WARM_UP_SECONDS = 64, 2
SHARED_PORT = {"REUSE_PORT": "true"} | gateways.WHOLE

CORES = sorted(os.sched_getaffinity(0))


def calibrate(load: Load, seconds: float) -> Demands:
    """Microseconds of CPU of a request of each kind, by process and store: one kind after the other."""
    demands: dict[str, Mapping[str, float]] = {}
    with Processes() as processes:
        progress(0, len(mixed.MIX), "starting and seeding")
        measured, gateway, mix = mixed.start(processes)
        load.open(gateway.port, mix.requests(1000), CALIBRATION_RATE, mixed.WARM_UP_SECONDS).result()
        for done, kind in enumerate(mixed.MIX):
            progress(done, len(mixed.MIX), f"calibrating: {kind}")
            requests = mix.requests(int(CALIBRATION_RATE * seconds * 1.2), {kind: 1})
            before = mixed.cpu(measured)
            answers = load.open(gateway.port, requests, CALIBRATION_RATE, seconds).result()
            spent = mixed.cpu(measured) - before
            demands[kind] = {name: spent[name] / answers.count * 1e6 for name in (*PROCESSES, *STORES)}
        progress(len(mixed.MIX), len(mixed.MIX), "done")
    return demands


def simulated(demands: Demands) -> Iterator[tuple[int, float, str]]:
    for instances in INSTANCES:
        suite = Suite(instances, demands, mixed.MIX)
        rate = suite.rate()
        part, share = max(suite.busy().items(), key=lambda busy: busy[1])
        yield instances, rate, f"{part}, {share:.0%}"


def measured(load: Load, seconds: float) -> Iterator[tuple[int, float, str]]:
    """Throughput with a core for each instance; this process and what it starts have the others."""
    for instances in INSTANCES:
        with Processes() as processes:
            progress(0, 1, f"{instances} of each service")
            processes.environment |= SHARED_PORT
            suite, gateway, mix = mixed.start(processes, instances)
            more = share_port(processes, gateway, instances)
            scaled = [one for one in (*suite, *more) if one.name in PROCESSES]
            pin(scaled)
            requests = [text for _, text in mix.requests(int(20_000 * seconds))]
            before = [one.cpu() for one in scaled]
            answers = load.closed(gateway.port, requests, CLIENTS * instances, seconds).result()
            busy = [(one.cpu() - was) / seconds for one, was in zip(scaled, before, strict=True)]
            share, name = max(zip(busy, (one.name for one in scaled), strict=True))
            yield instances, answers.rate, f"{name}, {share:.0%}"


def has_cores(instances: int) -> bool:
    """Whether so many can each have one, beside the stores and the load."""
    return len(CORES) >= instances + OTHER_CORES


def pin(running: Sequence[Running]) -> None:
    """Give each a core of its own, if there are enough."""
    for one, core in zip(running, CORES[OTHER_CORES:] if has_cores(len(running)) else [], strict=False):
        one.pin(core)


def share_port(processes: Processes, first: Running, count: int) -> list[Running]:
    """Start gateways beside the first one, and wait until so many listen on its port."""
    others = [
        processes.python("gateway", "gateway.py", port=first.port, **SHARED_PORT) for _ in range(count - 1)
    ]
    seen = set()

    def all_answer() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{first.port}/livez") as response:
            seen.add(response.headers[PROCESS_ID_HEADER])
        return len(seen) == count

    wait_until(all_answer, "the gateways")
    return others


def gateway(load: Load, count: int, seconds: float) -> tuple[float, float]:
    """Of so many on one port: microseconds of CPU of a request, and requests a second."""
    with Processes() as processes:
        progress(count - 1, 2, f"gateways on one port: {count}")
        registry = processes.service("registry", "-m", "registry_service.app")
        upstream = processes.baseline("proxies:upstream")
        with gateways.registered(registry, upstream):
            processes.environment["REGISTRY_URL"] = f"http://127.0.0.1:{registry.port}"
            first = processes.service("gateway", "gateway.py", **SHARED_PORT)
            listening = [first, *share_port(processes, first, count)]
            pin(listening)
            load.closed(first.port, gateways.REQUESTS, CONNECTIONS, WARM_UP_SECONDS).result()
            before = sum(one.cpu() for one in listening)
            answers = load.closed(first.port, gateways.REQUESTS, CONNECTIONS, seconds).result()
            assert not answers.errors, answers.statuses
            return (sum(one.cpu() for one in listening) - before) / answers.count * 1e6, answers.rate


def print_instances(results: Sequence[tuple[int, float, str]]) -> None:
    one = results[0][1]
    rows = [
        (instances, rate, rate / instances / one, EFFICIENCY if instances == 2 else "", busiest)
        for instances, rate, busiest in results
    ]
    table(("instances of each", "requests/s", "efficiency", "reach >=", "busiest"), rows)


def print_demands(demands: Demands) -> None:
    parts = (*PROCESSES, *STORES)
    rows = [(kind, *(demands[kind][part] for part in parts)) for kind in demands]
    table(("us of CPU", *parts), rows)


def print_gateways(one: tuple[float, float], two: tuple[float, float]) -> None:
    """Each takes as many connections as it can serve: with cores enough, both are as busy as one would be."""
    if has_cores(2):
        print("\nGateways on one port, each with a core. Measured: throughput.\n")
        times = two[1] / one[1]
    else:
        print(
            "\nGateways on one port. Measured: CPU of a request. Computed: throughput with a core for each.\n"
        )
        times = 2 * one[0] / two[0]
    table(
        ("gateways", "us of CPU a request", "throughput", "reach >="),
        [(1, one[0], 1.0, ""), (2, two[0], times, TWO_GATEWAYS)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if has_cores(2):
        os.sched_setaffinity(0, CORES[:OTHER_CORES])
    with Load() as load:
        if has_cores(needed := INSTANCES[-1] * len(PROCESSES)):
            print_instances(list(measured(load, options.seconds)))
        else:
            print(f"{len(CORES)} cores of {needed + OTHER_CORES}. Measured: CPU of a request, one of each.\n")
            demands = calibrate(load, options.seconds)
            print_demands(demands)
            print("\nComputed: throughput with enough cores, four of them for PostgreSQL.\n")
            print_instances(list(simulated(demands)))
        print_gateways(*(gateway(load, count, options.seconds) for count in (1, 2)))


if __name__ == "__main__":
    main()
