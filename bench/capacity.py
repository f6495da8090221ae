"""What so many users need and cost: requests, rows, bytes, cores, money, and which part gives way first.

    .venv/bin/python -m bench.capacity [--users 10000 1000000 100000000]
    .venv/bin/python -m bench.capacity --measure    # what a row takes, on stores of its own

docs/scaling.md explains the tables. Change the constants to yours: users, coefficients, limits, prices.
"""

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any
from uuid import UUID

from bench import seed
from bench.mixed import MIX
from bench.processes import Processes
from bench.report import table
from common.settings import THREADS
from likes_service.keys import PENDING
from likes_service.store import LikesStore
from polls_service.items import SHARDS, vote_item
from registry_service.store import MAX_INSTANCES

DAY, YEAR, MONTH = 86_400, 365, 30

# Assumptions about users.
ACTIVE_SHARE = 0.2  # of all users, on a day
REQUESTS = 50  # of an active user on a day, in the mix of bench.mixed
SIGN_INS = 2  # of an active user on a day
PEAK = 3  # the busiest hour's rate, in means
YEARS = 1  # for which rows are kept
FOLLOWEES = 39  # of a user, as in bench.mixed

# Microseconds of CPU of a request of the mix: python -m bench.mixed --instances 1 --rates 100 --seconds 12
CPU: Mapping[str, float] = {
    "gateway": 1469, "users": 1469, "timelines": 4194, "likes": 119, "polls": 153,
    "postgres": 2309, "redis": 42, "beanstalkd": 51,
}  # fmt: skip
# Microseconds of CPU to check a password, and bytes of a row with its indexes:
# python -m bench.capacity --measure
SIGN_IN_CPU = 32_000.0
BYTES: Mapping[str, float] = {"user": 672, "follow": 235, "post": 314, "like": 348, "vote": 164}

# How full what runs may be in the busiest hour.
UTILISATION = 0.6
# PostgreSQL's max_connections, but for an operator's.
CONNECTIONS = 97
# The largest machines and disks that clouds offer as one managed PostgreSQL, and as one Redis.
POSTGRES_CORES, POSTGRES_BYTES, REDIS_BYTES = 96, 64e12, 400e9
# DynamoDB: of one partition. A vote writes two items in one transaction, which counts each of them twice.
PARTITION_WRITES, WRITES_A_VOTE = 1000, 4

# US dollars a month. Assumptions, by class of what is rented: put those of your provider here.
PRICES: Mapping[str, float] = {
    "container core": 30,
    "PostgreSQL core, with a standby": 180,
    "PostgreSQL GB, with a standby": 0.25,
    "Redis GB, with a replica": 25,
    "million DynamoDB writes": 0.65,
    "million DynamoDB reads": 0.13,
    "DynamoDB GB": 0.25,
}

SERVICES = ("gateway", "users", "timelines", "likes", "polls")


class Demand:
    """What this many users ask for."""

    def __init__(self, users: float) -> None:
        self.users = users
        self.requests_a_day = users * ACTIVE_SHARE * REQUESTS
        self.mean = self.requests_a_day / DAY
        self.peak = self.mean * PEAK

    def rows(self, kind: str) -> float:
        """How many there are after the years for which they are kept."""
        match kind:
            case "user":
                return self.users
            case "follow":
                return self.users * FOLLOWEES
            case _:
                return self.requests_a_day * MIX[kind] / 100 * YEAR * YEARS

    def stored(self, *kinds: str) -> float:
        """Bytes."""
        return sum(self.rows(kind) * BYTES[kind] for kind in kinds)

    def cores(self, part: str) -> float:
        """That are busy in the busiest hour."""
        sign_ins = SIGN_INS / REQUESTS * SIGN_IN_CPU if part == "users" else 0
        return self.peak * (CPU[part] + sign_ins) / 1e6

    def instances(self, service: str) -> int:
        """A Python process uses one core; two of each, so that one may end."""
        return max(2, ceil(self.cores(service) / UTILISATION))

    @property
    def postgres_bytes(self) -> float:
        return self.stored("user", "follow", "post")

    @property
    def connections(self) -> int:
        """At most, with one worker."""
        return (self.instances("users") + self.instances("timelines")) * THREADS + 1

    def money(self) -> dict[str, float]:
        """US dollars a month, by what is rented."""
        votes = self.requests_a_day * MIX["vote"] / 100 * MONTH / 1e6
        rented = {
            "containers": float(sum(map(self.instances, SERVICES))) * PRICES["container core"],
            "PostgreSQL": max(2, ceil(self.cores("postgres") / UTILISATION))
            * PRICES["PostgreSQL core, with a standby"]
            + self.postgres_bytes / 1e9 * PRICES["PostgreSQL GB, with a standby"],
            "Redis": max(1, self.stored("like") / 1e9) * PRICES["Redis GB, with a replica"],
            "DynamoDB": votes * WRITES_A_VOTE * PRICES["million DynamoDB writes"]
            + votes * PRICES["million DynamoDB reads"]
            + self.stored("vote") / 1e9 * PRICES["DynamoDB GB"],
        }
        return rented | {"all": sum(rented.values())}


def limits() -> list[tuple[str, float, str]]:
    """Which part gives way at how many users, the first one first; and what is done then."""
    one = Demand(1)
    instance_pairs = (CONNECTIONS - 1) // THREADS * UTILISATION
    found = [
        (
            "connections of one PostgreSQL",
            instance_pairs / (one.cores("users") + one.cores("timelines")),
            "PgBouncer in transaction mode",
        ),
        (
            "cores of one PostgreSQL",
            POSTGRES_CORES * UTILISATION / one.cores("postgres"),
            "a server for each service; replicas for reads",
        ),
        (
            "disk of one PostgreSQL",
            POSTGRES_BYTES / one.postgres_bytes,
            "posts on several servers, by time or author",
        ),
        ("memory of one Redis", REDIS_BYTES / one.stored("like"), "Redis Cluster"),
        ("the one core of Redis", UTILISATION / one.cores("redis"), "Redis Cluster"),
        (
            "the one core of Beanstalkd",
            UTILISATION / one.cores("beanstalkd"),
            "several in `BEANSTALKD_HOST`",
        ),
        (
            f"{MAX_INSTANCES:,} instances in the registry",
            MAX_INSTANCES * UTILISATION / sum(map(one.cores, SERVICES)),
            "a higher limit there",
        ),
    ]
    return sorted(found, key=lambda limit: limit[1])


def print_tables(users: Sequence[float]) -> None:
    demands = [Demand(number) for number in users]
    head = ("", *(f"{number:,.0f} users" for number in users))

    def rows(*lines: tuple[str, Sequence[object]]) -> None:
        table(head, [(name, *values) for name, values in lines])
        print()

    rows(
        ("requests a day", [each.requests_a_day for each in demands]),
        ("requests a second, mean", [each.mean for each in demands]),
        ("requests a second, busiest hour", [each.peak for each in demands]),
        *((f"{kind}s", [each.rows(kind) for each in demands]) for kind in BYTES),
    )
    rows(
        ("PostgreSQL, GB", [each.postgres_bytes / 1e9 for each in demands]),
        ("Redis, GB", [each.stored("like") / 1e9 for each in demands]),
        ("DynamoDB, GB", [each.stored("vote") / 1e9 for each in demands]),
        *((f"{part}, cores busy", [each.cores(part) for each in demands]) for part in CPU),
        *((f"{service}, instances", [each.instances(service) for each in demands]) for service in SERVICES),
        ("connections to PostgreSQL", [each.connections for each in demands]),
    )
    rows(*((what, [each.money()[what] for each in demands]) for what in demands[0].money()))
    table(("what gives way", "at users", "then"), limits())
    votes = SHARDS * PARTITION_WRITES / WRITES_A_VOTE
    print(f"\nOne poll takes {votes:,.0f} votes a second, whatever the users.")


def password_cpu(count: int = 20) -> float:
    """Microseconds of CPU to check one."""
    hashed = seed.HASHER.hash(seed.PASSWORD)
    before = time.process_time()
    for _ in range(count):
        seed.HASHER.verify(seed.PASSWORD, hashed)
    return (time.process_time() - before) / count * 1e6


def row_bytes() -> dict[str, float]:
    """Bytes of a row with its indexes, on stores of its own."""
    users, posts, likes = 1_000, 30_000, 20_000
    names = [seed.name(number) for number in range(users)]
    with Processes() as processes:
        processes.stores()
        processes.service("users", "-m", "users_service.app")
        processes.service("timelines", "-m", "timelines_service.app")
        port = int(processes.environment["DB_PORT"])
        seed.users(port, names)
        # Before the follows: each of them leaves a dead row behind, which vacuum takes away over time.
        user_bytes = _table_bytes(port, "microblog_users", "users", "user_words")
        pairs = (
            (one, names[(at + step) % users])
            for at, one in enumerate(names)
            for step in range(1, FOLLOWEES + 1)
        )
        seed.follows(port, pairs)
        seed.posts(port, itertools.cycle(names), posts)
        return {
            "user": user_bytes / users,
            "follow": _table_bytes(port, "microblog_users", "follows") / (users * FOLLOWEES),
            "post": _table_bytes(port, "microblog_timelines", "posts", "post_tags") / posts,
            "like": _like_bytes(processes.environment["REDIS_URL"], names, likes),
            "vote": _item_bytes(),
        }


def _table_bytes(port: int, database: str, *tables: str) -> int:
    """With their indexes."""
    with closing(seed.connect(port, database)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_total_relation_size(name)) FROM unnest(%s::regclass[]) AS name", (list(tables),)
        )
        return int(cursor.fetchone()[0])


def _like_bytes(url: str, names: Sequence[str], count: int) -> float:
    """Ten likes a post; without the outbox, which workers empty."""
    now = datetime.now(UTC)
    with closing(LikesStore.connect(url)) as store:
        client: Any = store._redis  # noqa: SLF001  no verb says how much memory there is
        client.config_set("appendfsync", "no")
        before = client.info("memory")["used_memory"]
        for number in range(count):
            store.like(
                seed.post_id(number // 10, count), names[number % len(names)], now, now + timedelta(hours=1)
            )
        outbox = client.memory_usage(PENDING, samples=0)
        return float(client.info("memory")["used_memory"] - before - outbox) / count


def _item_bytes() -> float:
    """As DynamoDB counts: names and values in UTF-8, and 100 bytes of index."""
    item = vote_item(UUID(int=0), seed.name(1), [1])
    return 100 + sum(
        len(name) + sum(len(str(value)) for value in typed.values()) for name, typed in item.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--users", type=float, nargs="+", default=[1e4, 1e6, 1e8])
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    if options.measure:
        table(
            ("what", "measured", "assumed here"),
            [
                ("CPU to check a password, us", password_cpu(), SIGN_IN_CPU),
                *((f"bytes of a {kind}", size, BYTES[kind]) for kind, size in row_bytes().items()),
            ],
        )
    else:
        print_tables(options.users)


if __name__ == "__main__":
    main()
