"""What gets slower when there is more: home timelines, likes, the ranking, polls.

    .venv/bin/python -m bench.growth [--large] [--plot docs/growth.png]

--large adds 5 million posts, which take some minutes. The plot needs requirements-bench.txt.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any
from uuid import UUID

import redis
import server_processes
from sqlalchemy import URL, create_engine

from bench import plot, seed
from bench.load import Load, request
from bench.processes import Processes
from bench.report import progress, table
from common.fields import new_id
from common.postgres.url import database_url
from common.settings import PostgresSettings
from likes_service.keys import LIKERS, POPULAR
from likes_service.store import LikesStore
from polls_service.models import NewPoll
from polls_service.store import PollsStore
from timelines_service.home_timelines import BY_FOLLOWEE
from timelines_service.post_query import LAST_ID, Page
from timelines_service.store import TimelinesStore

POSTS = (20_000, 1_000_000)
LARGE = 5_000_000
FOLLOWEES = (10, 100, 1000, 5000)
LIKES = (1000, 10_000, 100_000, 1_000_000)
VOTES = (10, 100, 1000, 5000)
PAGE = 21

# What was asked, how much there was, milliseconds.
Measured = Mapping[tuple[str, int], float]

# Who writes, some a thousand times as often as others; and who wrote once, before all of them.
ACTIVE = [seed.name(number) for number in range(20_000)]
DORMANT = [f"dormant{number:05}" for number in range(6000)]


@dataclass(frozen=True)
class Point:
    """How long the half of the calls took at most, in milliseconds, when there was so much."""

    what: str
    size: int
    milliseconds: float


def p50(call: Callable[[], object], times: int = 40) -> float:
    """Milliseconds."""
    call()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1000


def authors(count: int) -> Iterator[str]:
    """Log-uniform over the ranks (Zipf's law), after those who are silent since."""
    dice = random.Random(count)
    busy = (ACTIVE[int(len(ACTIVE) ** dice.random()) - 1] for _ in range(count))
    return itertools.islice(itertools.chain(DORMANT, busy), count)


def followees(count: int) -> list[str]:
    """Drawn as they write: most are read because they write."""
    dice = random.Random(count)
    chosen: dict[str, None] = {}
    while len(chosen) < count:
        chosen[ACTIVE[int(len(ACTIVE) ** dice.random()) - 1]] = None
    return list(chosen)


def reader(count: int) -> str:
    return f"reader{count:05}"


def home_timelines(processes: Processes, load: Load, sizes: Sequence[int]) -> Iterator[Point]:
    port = processes.store(server_processes.postgres)
    registry = processes.service("registry", "-m", "registry_service.app")
    processes.environment |= {
        "DB_PORT": str(port),
        "LOG_LEVEL": "warning",
        "REGISTRY_URL": f"http://127.0.0.1:{registry.port}",
        "BEANSTALKD_PORT": str(processes.store(server_processes.beanstalkd)),
    }
    processes.service("users", "-m", "users_service.app")
    seed.users(port, [*ACTIVE, *map(reader, FOLLOWEES)])
    seed.follows(port, ((reader(count), name) for count in FOLLOWEES for name in followees(count)))
    for size in sizes:
        yield from _among_posts(processes, load, port, size)


def _among_posts(processes: Processes, load: Load, port: int, size: int) -> Iterator[Point]:
    name = f"posts_{size}"
    url = database_url(PostgresSettings(db_port=port), None, name)
    with closing(TimelinesStore.connect(url)) as store:
        store.prepare()
        seed.posts(port, authors(size), size, name)
        for count in FOLLOWEES:
            yield Point(f"home query, {size:,} posts", count, _query(store, followees(count)))
        for count in FOLLOWEES:
            yield Point(f"dormant query, {size:,} posts", count, _query(store, DORMANT[:count]))
    for count in FOLLOWEES:
        yield Point(f"dormant probe, {size:,} posts", count, _probe(url, DORMANT[:count]))
    timelines = processes.service("timelines", "-m", "timelines_service.app", TIMELINES_DB_NAME=name)
    for count in FOLLOWEES:
        ask = request("GET", f"/posts/home/{reader(count)}", seed.TOKENS.issue(reader(count)))
        load.closed(timelines.port, [ask], 1, 0.5).result()
        answers = load.closed(timelines.port, [ask], 1, 2).result()
        assert not answers.errors, answers.statuses
        yield Point(f"home endpoint, {size:,} posts", count, answers.percentile(50))


def _query(store: TimelinesStore, names: Sequence[str]) -> float:
    return p50(lambda: store.newest_by_users(names, Page(PAGE)))


def _probe(url: URL, names: Sequence[str]) -> float:
    """The same by followee alone, without a look at the newest posts of all first."""
    followees = "{" + ",".join(names) + "}"
    values = {"followees": followees, "hidden": "{}", "limit": PAGE, "cursor": LAST_ID}
    with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        return p50(lambda: connection.execute(BY_FOLLOWEE.older.statement, values).all())


def likes(processes: Processes) -> Iterator[Point]:
    url = f"redis://127.0.0.1:{processes.store(server_processes.redis)}/0"
    with closing(LikesStore.connect(url)) as store, closing(redis.Redis.from_url(url)) as client:
        yield from _ranking(store, client)
        yield from _liked_post(store, client)


def _ranking(store: LikesStore, client: redis.Redis) -> Iterator[Point]:
    dice = random.Random(1)
    for before, size in itertools.pairwise((0, *LIKES)):
        for _ in range(before, size, 1000):
            client.zadd(POPULAR, {str(UUID(int=dice.getrandbits(128))): 1 for _ in range(1000)})
        found: Any = client.zrange(POPULAR, size // 2, size // 2)
        middle = UUID(found[0].decode())
        yield Point("popular, liked posts", size, p50(lambda: store.popular(PAGE, None)))
        yield Point("popular from the middle", size, p50(partial(store.popular, PAGE, middle)))


def _liked_post(store: LikesStore, client: redis.Redis) -> Iterator[Point]:
    post, now = new_id(), datetime.now(UTC)
    fans = (f"fan{number}" for number in itertools.count())
    for before, size in itertools.pairwise((0, *LIKES)):
        for first in range(before, size, 1000):
            client.zadd(f"{LIKERS}{post}", {seed.name(first + n): first for n in range(1000)})
        yield Point("like, likes of the post", size, p50(lambda: store.like(post, next(fans), now, now)))
        yield Point("count, likes of the post", size, p50(lambda: store.count(post)))


def polls(processes: Processes) -> Iterator[Point]:
    url = f"http://127.0.0.1:{processes.store(server_processes.dynamodb)}"
    new = NewPoll(question="Tea or coffee?", options=["Tea", "Coffee"])
    with closing(PollsStore.connect(url, "us-east-1", "dummy", "dummy", "Polls")) as store:
        store.prepare()
        poll = store.create(new, "alice", datetime.now(UTC))
        voters = map(seed.name, itertools.count())

        def vote() -> object:
            return store.vote(poll.id, next(voters), 1)

        for before, size in itertools.pairwise((0, *VOTES)):
            for _ in range(before, size):
                vote()
            yield Point("vote, votes of the poll", size, p50(vote))
            yield Point("results, votes of the poll", size, p50(lambda: store.results(poll.id)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--plot")
    options = parser.parse_args()
    if options.plot:
        plot.require()
    sizes = [*POSTS, LARGE] if options.large else POSTS
    points: list[Point] = []
    with Processes() as processes, Load() as load:
        every = itertools.chain(likes(processes), polls(processes), home_timelines(processes, load, sizes))
        total = 4 * len(LIKES) + 2 * len(VOTES) + 4 * len(FOLLOWEES) * len(sizes)
        for point in every:
            points.append(point)
            progress(len(points), total, f"{point.what}: {point.size:,}")
    table(("p50", "ms at the least", "times that at"), list(_series(points)))
    print()
    table(
        ("ratio", "measured", "reach <="), list(_targets({(p.what, p.size): p.milliseconds for p in points}))
    )
    if options.plot:
        _plot(points, options.plot)


def _series(points: list[Point]) -> Iterator[tuple[object, ...]]:
    for what, group in itertools.groupby(sorted(points, key=_what), _what):
        first, *more = group
        times = (f"{point.size:,}: {point.milliseconds / first.milliseconds:.1f}" for point in more)
        yield what, first.milliseconds, "  ".join(times)


def _what(point: Point) -> str:
    return point.what


def _targets(found: Measured) -> Iterator[tuple[object, ...]]:
    middle = POSTS[-1]
    for part in ("query", "endpoint"):
        home = f"home {part}, {middle:,} posts"
        yield f"{home}, 5,000 followees to 10", found[home, 5000] / found[home, 10], 8.0
        large = f"home {part}, {LARGE:,} posts"
        if (large, 10) in found:
            yield f"{large}, to {middle:,}, 10 followees", found[large, 10] / found[home, 10], 1.5
    for (what, size), milliseconds in found.items():
        if what.startswith("dormant query"):
            probe = found[what.replace("query", "probe"), size]
            yield f"{what}, {size:,} followees, to the probe", milliseconds / probe, 1.5


def _plot(points: list[Point], path: str) -> None:
    titles = {
        ("Home timelines", "followees"): ("home", "dormant query"),
        ("Likes", "likes, liked posts"): ("like", "count", "popular"),
        ("Polls", "votes"): ("vote", "results"),
    }
    chosen = {
        title: {
            what: [(point.size, point.milliseconds) for point in points if point.what == what]
            for what in dict.fromkeys(point.what for point in points if point.what.startswith(starts))
        }
        for title, starts in titles.items()
    }
    plot.panels(path, chosen)


if __name__ == "__main__":
    main()
