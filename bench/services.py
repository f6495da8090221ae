"""One process of each service against a FastAPI `def` route on the bare driver (bench/baselines/services.py).

    .venv/bin/python -m bench.services [--rounds 7] [--seconds 1] [--only likes]

Access logs are off on both sides.
"""

import argparse
import itertools
import json
import random
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from urllib.parse import urlencode
from uuid import UUID

from bench import seed
from bench.load import Load, request
from bench.processes import Processes, Running
from bench.report import progress, ratio, table
from users_service.passwords import CORES

CONNECTIONS = 16
USERS, POSTS = 2000, 100_000
FOLLOWEES = 40
# What is left of the last flood is answered first.
LOGIN_SECONDS = 3.0
# More requests than can be answered in a round: what writes is never asked twice for the same.
MANY = 6000


@dataclass
class Case:
    """A call, ours and its baseline, and what came of each round: requests a second, CPU seconds each."""

    name: str
    ours: Running
    baseline: Running
    requests: Callable[[], list[bytes]]
    reach: float | None
    costs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {"ours": [], "baseline": []})

    def measure(self, load: Load, seconds: float) -> None:
        for side, running in (("ours", self.ours), ("baseline", self.baseline)):
            texts = self.requests()
            before = running.cpu()
            answers = load.closed(running.port, texts, CONNECTIONS, seconds).result()
            assert not answers.errors, (self.name, side, answers.statuses)
            self.costs[side].append((answers.rate, (running.cpu() - before) / answers.count))

    def row(self) -> tuple[object, ...]:
        rates, cpus = zip(*self.costs["ours"], strict=True)
        baseline_rates, baseline_cpus = zip(*self.costs["baseline"], strict=True)
        figures = (median(rates), median(baseline_rates), median(cpus) * 1e6, median(baseline_cpus) * 1e6)
        return self.name, ratio(rates, baseline_rates), self.reach or "", ratio(cpus, baseline_cpus), *figures


def _token(number: int) -> str:
    return TOKENS[number % len(TOKENS)]


TOKENS: list[str] = [seed.TOKENS.issue(seed.name(n)) for n in range(USERS)]
RANDOM = random.Random(1)


def _reads(paths: Sequence[str], token: bool = False) -> Callable[[], list[bytes]]:
    texts = [request("GET", path, _token(n) if token else None) for n, path in enumerate(paths)]
    return lambda: texts


def _timelines(processes: Processes, services: dict[str, Running]) -> Iterator[Case]:
    ours = services["timelines"]
    baseline = processes.baseline(
        "services:timelines", USERS_URL=f"http://127.0.0.1:{services['users'].port}"
    )
    names = [seed.name(n) for n in RANDOM.sample(range(USERS), 500)]
    ids = [_some_id(ours, n) for n in range(10)]
    new_post = json.dumps({"text": seed.TEXT}).encode()
    home = [request("GET", f"/posts/home/{seed.name(n)}", _token(n)) for n in range(500)]
    writes = [request("POST", "/posts", _token(n), new_post) for n in range(500)]
    posts = [f"/posts/id/{one}" for one in itertools.chain.from_iterable(ids)]
    yield Case("GET /posts/id/{post_id}", ours, baseline, _reads(posts), 0.9)
    yield Case("GET /posts/{username}", ours, baseline, _reads([f"/posts/{name}" for name in names]), 0.9)
    yield Case("GET /posts", ours, baseline, _reads(["/posts"]), 0.9)
    yield Case("GET /posts/home/{username}", ours, baseline, lambda: home, None)
    yield Case("POST /posts", ours, baseline, lambda: writes, 0.9)


def _some_id(timelines: Running, number: int) -> list[str]:
    url = f"http://127.0.0.1:{timelines.port}/posts/{seed.name(number)}?limit=50"
    with urllib.request.urlopen(url) as answer:
        return [post["id"] for post in json.load(answer)]


def _users(processes: Processes, services: dict[str, Running]) -> Iterator[Case]:
    baseline = processes.baseline("services:users")
    profiles = [f"/users/{seed.name(n * 7 % USERS)}" for n in range(500)]
    yield Case("GET /users/{username}", services["users"], baseline, _reads(profiles, token=True), 0.9)


def _likes(processes: Processes, services: dict[str, Running]) -> Iterator[Case]:
    def likes() -> list[bytes]:
        paths = (f"/likes/{UUID(int=RANDOM.getrandbits(128))}" for _ in range(MANY))
        return [request("POST", path, _token(n)) for n, path in enumerate(paths)]

    yield Case("POST /likes/{post_id}", services["likes"], processes.baseline("services:likes"), likes, 0.9)


def _polls(processes: Processes, services: dict[str, Running]) -> Iterator[Case]:
    ours = services["polls"]
    voters = _votes(ours)

    def votes() -> list[bytes]:
        body = json.dumps({"option": 1}).encode()
        return [
            request("POST", f"/polls/{poll}/vote", _token(number), body)
            for poll, number in itertools.islice(voters, MANY // 3)
        ]

    yield Case("POST /polls/{poll_id}/vote", ours, processes.baseline("services:polls"), votes, 0.9)


def _votes(polls: Running) -> Iterator[tuple[str, int]]:
    """Every user on one poll, then on the next."""
    for _ in itertools.count():
        poll = _new_poll(polls)
        yield from ((poll, number) for number in range(USERS))


def _new_poll(polls: Running) -> str:
    call = urllib.request.Request(
        f"http://127.0.0.1:{polls.port}/polls",
        json.dumps({"question": "Tea or coffee?", "options": ["Tea", "Coffee", "Water"]}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {_token(0)}"},
    )
    with urllib.request.urlopen(call) as answer:
        return str(json.load(answer)["id"])


AREAS = {"timelines": _timelines, "users": _users, "likes": _likes, "polls": _polls}


def _start(processes: Processes) -> dict[str, Running]:
    processes.environment["LOG_LEVEL"] = "warning"
    processes.stores()
    registry = processes.service("registry", "-m", "registry_service.app")
    processes.environment["REGISTRY_URL"] = f"http://127.0.0.1:{registry.port}"
    return {name: processes.service(name, "-m", f"{name}_service.app") for name in AREAS}


def _seed(port: int) -> None:
    seed.users(port, map(seed.name, range(USERS)))
    seed.posts(port, itertools.cycle(map(seed.name, range(USERS))), POSTS)
    pairs = (
        (seed.name(n), seed.name(m))
        for n in range(USERS)
        for m in RANDOM.sample(range(USERS), FOLLOWEES)
        if m != n
    )
    seed.follows(port, pairs)


def _log_in(load: Load, users: Running, rounds: int, seconds: float) -> None:
    """What a sign-in costs beside the verification of its password, and what a flood does to others."""
    body = urlencode({"username": seed.name(1), "password": seed.PASSWORD}).encode()
    logins = [request("POST", "/login", body=body, kind="application/x-www-form-urlencoded")]
    reads = [("read", request("GET", "/users/user000002"))]
    costs, verifications, delays = [], [], []
    for _ in range(rounds):
        before = users.cpu()
        answers = load.closed(users.port, logins, CONNECTIONS, seconds).result()
        assert not answers.errors, answers.statuses
        costs.append((users.cpu() - before) / answers.count)
        verifications.append(_verification())
        flood = load.closed(users.port, logins, CONNECTIONS, seconds)
        delays.append(load.open(users.port, reads, 100, seconds).result().percentile(99))
        flood.result()
    print()
    table(
        ("login", "measured", "reach <="),
        [
            ("CPU, in argon2id verifications", ratio(costs, verifications), 1.15),
            ("p99 of GET /users/{username} meanwhile, ms", median(delays), 100),
        ],
    )


def _verification(count: int = 20) -> float:
    """Seconds of CPU, with as many at once as the service lets run: they share the memory's speed."""
    hashed = seed.HASHER.hash(seed.PASSWORD)
    with ThreadPoolExecutor(CORES) as threads:
        before = time.process_time()
        list(threads.map(lambda _: seed.HASHER.verify(seed.PASSWORD, hashed), range(count)))
        return (time.process_time() - before) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", choices=AREAS)
    options = parser.parse_args()
    with Processes() as processes, Load() as load:
        progress(0, options.rounds, "starting and seeding")
        services = _start(processes)
        _seed(int(processes.environment["DB_PORT"]))
        areas = [AREAS[options.only]] if options.only else AREAS.values()
        cases = [case for area in areas for case in area(processes, services)]
        for done in range(options.rounds):
            for case in cases:
                progress(done, options.rounds, case.name)
                case.measure(load, options.seconds)
        progress(options.rounds, options.rounds, "done")
        head = (
            "call",
            "ours/baseline",
            "reach >=",
            "CPU ours/baseline",
            "req/s",
            "baseline",
            "us CPU",
            "baseline",
        )
        table(head, [case.row() for case in cases])
        if options.only in (None, "users"):
            _log_in(load, services["users"], options.rounds, LOGIN_SECONDS)


if __name__ == "__main__":
    main()
