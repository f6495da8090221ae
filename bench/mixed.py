"""A social network's mixed load through the gateway: how much, how late, and where the time goes.

    .venv/bin/python -m bench.mixed [--rates 50 100 150 200 250 300] [--seconds 10] [--plot docs/mixed.png]

The mix is that of DeathStarBench's social network (60% home timelines, 30% users' timelines, 10% posts) with
5% of likes, votes and follows, on a graph with the degrees of the one that it uses (962 users, socfb-Reed98).
Requests come at random moments, whether or not the last ones have been answered. The plot needs
requirements-bench.txt.
"""

import argparse
import itertools
import json
import random
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench import plot, seed
from bench.load import Answers, Load, request
from bench.processes import Processes, Running
from bench.report import progress, table

USERS, POSTS, POLLS = 962, 20_000, 20
# Shares of users and their degrees up to there: mean 39, median 29, p90 87, p99 157, at most 313.
DEGREES = ((0.0, 1), (0.25, 11), (0.5, 29), (0.75, 50), (0.9, 87), (0.99, 157), (1.0, 313))
MIX = {"home": 57.0, "timeline": 28.5, "post": 9.5, "like": 2.0, "vote": 1.5, "follow": 1.5}
P99_MILLISECONDS = 100
INSTANCES = (1, 2)
WARM_UP_SECONDS = 5


@dataclass(frozen=True)
class Step:
    """One offered load: what came back, and seconds of CPU by process."""

    instances: int
    offered: float
    answers: Answers
    cpu: Counter[str]

    @property
    def is_good(self) -> bool:
        return not self.answers.errors and self.answers.percentile(99) <= P99_MILLISECONDS


def degree(share: float) -> int:
    for (low, fewest), (high, most) in itertools.pairwise(DEGREES):
        if share <= high:
            return round(fewest + (most - fewest) * (share - low) / (high - low))
    raise ValueError(share)


def graph() -> set[tuple[int, int]]:
    """Who follows whom, both ways: friends drawn by their degrees (the configuration model)."""
    dice = random.Random(1)
    ends = [user for user in range(USERS) for _ in range(degree(user / (USERS - 1)))]
    dice.shuffle(ends)
    pairs = {(one, other) for one, other in zip(ends[::2], ends[1::2], strict=False) if one != other}
    return pairs | {(other, one) for one, other in pairs}


class Mix:
    """The requests of all the users, in the mix; whoever votes has not voted before."""

    def __init__(self, gateway: Running) -> None:
        self._dice = random.Random(2)
        self._tokens = [seed.TOKENS.issue(seed.name(user)) for user in range(USERS)]
        polls = [_new_poll(gateway, self._tokens[0]) for _ in range(POLLS)]
        self._votes = itertools.cycle(itertools.product(polls, range(USERS)))
        self._liked = [post["id"] for page in range(50) for post in _timeline(gateway, page)]

    def requests(self, count: int, shares: Mapping[str, float] = MIX) -> list[tuple[str, bytes]]:
        kinds = self._dice.choices(list(shares), list(shares.values()), k=count)
        return [(kind, self._request(kind)) for kind in kinds]

    def _request(self, kind: str) -> bytes:
        user, other = self._dice.sample(range(USERS), 2)
        match kind:
            case "home":
                return request("GET", f"/posts/home/{seed.name(user)}", self._tokens[user])
            case "timeline":
                return request("GET", f"/posts/{seed.name(other)}")
            case "post":
                return request("POST", "/posts", self._tokens[user], json.dumps({"text": seed.TEXT}).encode())
            case "like":
                return request("POST", f"/likes/{self._dice.choice(self._liked)}", self._tokens[user])
            case "vote":
                poll, voter = next(self._votes)
                return request("POST", f"/polls/{poll}/vote", self._tokens[voter], b'{"option": 1}')
            case _:
                verb = self._dice.choice(("follow", "unfollow"))
                return request("POST", f"/users/{verb}/{seed.name(other)}", self._tokens[user])


def _new_poll(gateway: Running, token: str) -> str:
    call = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}/polls",
        json.dumps({"question": "Tea or coffee?", "options": ["Tea", "Coffee"]}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    with urllib.request.urlopen(call) as answer:
        return str(json.load(answer)["id"])


def _timeline(gateway: Running, user: int) -> list[dict[str, str]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.port}/posts/{seed.name(user)}") as answer:
        posts: list[dict[str, str]] = json.load(answer)
        return posts


def _seed(port: int) -> None:
    names = [seed.name(user) for user in range(USERS)]
    seed.users(port, names)
    seed.posts(port, itertools.cycle(names), POSTS)
    seed.follows(port, ((seed.name(one), seed.name(other)) for one, other in sorted(graph())))


def start(processes: Processes, instances: int = 1) -> tuple[list[Running], Running, Mix]:
    """Start and seed the suite: its processes and stores, the gateway among them, and what to ask it for."""
    processes.environment |= {"RATE_LIMIT": "off", "LOG_LEVEL": "info"}
    processes.stores()
    suite = processes.suite(instances)
    _seed(int(processes.environment["DB_PORT"]))
    gateway = next(one for one in suite if one.name == "gateway")
    return [*suite, *processes.backing], gateway, Mix(gateway)


def measure(load: Load, instances: int, options: argparse.Namespace) -> Iterator[Step]:
    """Every offered load in turn, until one is far too much."""
    with Processes() as processes:
        progress(0, len(options.rates), "starting and seeding")
        measured, gateway, mix = start(processes, instances)
        load.open(gateway.port, mix.requests(1000), options.rates[0], WARM_UP_SECONDS).result()
        for done, rate in enumerate(options.rates):
            progress(done, len(options.rates), f"{rate} requests a second, {instances} of each service")
            step = _step(load, measured, gateway, mix, instances, rate, options.seconds)
            yield step
            if step.answers.percentile(50) > 10 * P99_MILLISECONDS:
                break
        progress(len(options.rates), len(options.rates), "done")


def _step(
    load: Load,
    suite: Sequence[Running],
    gateway: Running,
    mix: Mix,
    instances: int,
    rate: float,
    seconds: float,
) -> Step:
    requests = mix.requests(int(rate * seconds * 1.2))
    before = cpu(suite)
    answers = load.open(gateway.port, requests, rate, seconds).result()
    return Step(instances, rate, answers, cpu(suite) - before)


def cpu(suite: Sequence[Running]) -> Counter[str]:
    """Seconds so far, by name."""
    seconds: Counter[str] = Counter()
    for one in suite:
        seconds[one.name] += one.cpu()  # type: ignore[assignment]  # a Counter counts in floats as well
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[50, 100, 150, 200, 250, 300])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--instances", type=int, nargs="+", default=INSTANCES)
    parser.add_argument("--plot")
    options = parser.parse_args()
    if options.plot:
        plot.require()
    with Load() as load:
        steps = [step for instances in options.instances for step in measure(load, instances, options)]
    _print_latencies(steps)
    _print_kinds(steps)
    _print_cpu(steps)
    if options.plot:
        _plot(steps, options.plot)


def _print_latencies(steps: Sequence[Step]) -> None:
    rows = []
    for step in steps:
        times = [step.answers.percentile(percent) for percent in (50, 95, 99)]
        good = "yes" if step.is_good else ""
        rows.append((step.instances, step.offered, step.answers.rate, *times, step.answers.errors, good))
    head = (
        "instances",
        "offered/s",
        "answered/s",
        "p50 ms",
        "p95",
        "p99",
        "errors",
        f"p99 <= {P99_MILLISECONDS}",
    )
    table(head, rows)


def _best(steps: Sequence[Step]) -> list[Step]:
    """For each number of instances, the most that was answered in time; else the least that was tried."""
    return [
        max((s for s in group if s.is_good), key=lambda s: s.offered, default=group[0])
        for group in _by_instances(steps).values()
    ]


def _print_kinds(steps: Sequence[Step]) -> None:
    print()
    rows = [
        (step.instances, step.offered, kind, *(step.answers.percentile(p, kind) for p in (50, 99)))
        for step in _best(steps)
        for kind in MIX
    ]
    table(("instances", "offered/s", "what", "p50 ms", "p99"), rows)


def _print_cpu(steps: Sequence[Step]) -> None:
    print()
    rows = [
        (step.instances, step.offered, name, seconds / step.answers.count * 1e6)
        for step in _best(steps)
        for name, seconds in [*step.cpu.most_common(), ("all", step.cpu.total())]
    ]
    table(("instances", "offered/s", "process", "us CPU a request"), rows)


def _plot(steps: Sequence[Step], path: str) -> None:
    label = "requests a second offered"
    chosen = {
        (f"{instances} of each service", label): {
            f"p{percent}": [(step.offered, step.answers.percentile(percent)) for step in group]
            for percent in (50, 95, 99)
        }
        for instances, group in _by_instances(steps).items()
    }
    plot.panels(path, chosen, is_log=False)


def _by_instances(steps: Sequence[Step]) -> dict[int, list[Step]]:
    groups: dict[int, list[Step]] = {}
    for step in steps:
        groups.setdefault(step.instances, []).append(step)
    return groups


if __name__ == "__main__":
    main()
