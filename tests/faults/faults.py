"""What is done to the parts of a suite, what may fail meanwhile, and for how long."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal

from tests.faults.history import WRITES, Answer
from tests.faults.processes import SERVICES, WORKERS

# How long a part may stay unused after it is back; that it has to start first comes on top.
RECOVERY_SECONDS = 5

# What has to be there for each kind of request; the gateway, for all of them.
NEEDS = {
    "post": {"timelines", "postgres"},
    "keyed": {"timelines", "postgres"},
    "async": {"timelines", "beanstalkd"},
    "read": {"timelines", "postgres"},
    "timeline": {"timelines", "postgres"},
    "public": {"timelines", "postgres"},
    "home": {"timelines", "users", "postgres"},
    "follow": {"users", "postgres"},
    "unfollow": {"users", "postgres"},
    "profile": {"users", "postgres"},
    "followees": {"users", "postgres"},
    "like": {"likes", "redis"},
    "unlike": {"likes", "redis"},
    "liked": {"likes", "redis"},
    "popular": {"likes", "redis"},
    "repost": {"timelines", "postgres"},
    "unrepost": {"timelines", "postgres"},
    "delete": {"timelines", "postgres"},
    "inbox": {"timelines", "users", "postgres"},
    "dismiss": {"timelines", "postgres"},
    "ask": {"polls", "dynamodb"},
    "vote": {"polls", "dynamodb"},
}
# A POST that was under way may have had its effect: the gateway must not send it again.
NEVER_TWICE = {"post", "async", "follow", "unfollow", "like", "ask", "vote", "repost"}
# What these are told where it has been done already: by themselves before an answer was lost, or by another.
DONE_ALREADY = {"vote": 409, "delete": 404, "dismiss": 404}
# Nobody may have something to delete or to dismiss now.
SELDOM = {"delete", "dismiss", "unrepost"}

REVERTED_BY = {
    "kill": "start",
    "hang": "resume",
    "stop": "start",
    "freeze": "thaw",
    "defer": "accept",
    "demote": "promote",
    "lose": "replace",
    "move": "settle",
}
# Until the operator says otherwise, a primary acknowledges nothing without its synchronous standby.
TAKES_ALONG = {"redis_cluster": "redis", "standby": "postgres"}


@dataclass(frozen=True)
class Fault:
    """Something that is done to some parts at once, and undone some seconds later."""

    verb: Literal["kill", "hang", "stop", "freeze", "defer", "demote", "lose", "move"]
    parts: tuple[str, ...]
    seconds: float = 2
    # What operators call it.
    name: str = ""
    # After so many seconds nothing fails any more, though it is not undone yet.
    outage_seconds: float = math.inf

    def __str__(self) -> str:
        done = f"{self.verb} {' and '.join(self.parts)} for {self.seconds:g} s"
        return f"{self.name}: {done}" if self.name else done

    @property
    def title(self) -> str:
        """What it has in common with others that differ in how long, or in which instance."""
        return self.name or f"{self.verb} {' and '.join(self.parts)}"

    def excuses(self, answer: Answer) -> bool:
        """Whether a request may have failed because of it."""
        needs = NEEDS[answer.kind] | {"gateway"}
        if needs & self._away:
            # What reads is answered while a slot moves.
            return answer.is_away and not (self.verb == "move" and answer.kind not in WRITES)
        if self.verb == "stop":
            return False
        is_cut_off = answer.kind in NEVER_TWICE and needs & self._maimed and answer.status in (502, 504)
        return bool(is_cut_off) or ("gateway" in self._maimed and answer.status == 0)

    def concerned(self) -> set[str]:
        """The kinds of requests that cannot be answered meanwhile, and will soon be tried again."""
        concerned = {kind for kind, needs in NEEDS.items() if (needs | {"gateway"}) & self._away}
        return concerned - SELDOM

    def delays_lists(self) -> bool:
        """Whether the list of a user's likes may lack the last one for as long as it lasts."""
        return "redis_cluster" in self.parts

    def prolonged(self, factor: float) -> "Fault":
        return replace(self, seconds=round(self.seconds * factor, 1))

    @property
    def _away(self) -> set[str]:
        given = set(self.parts)
        whole = {name for name in self._maimed if {f"{name}.1", f"{name}.2"} <= given}
        along = {taken for part, taken in TAKES_ALONG.items() if part in given and self.verb != "stop"}
        return whole | given | along

    @property
    def _maimed(self) -> set[str]:
        return {part.partition(".")[0] for part in self.parts}


def both(part: str) -> tuple[str, str]:
    return f"{part}.1", f"{part}.2"


ROLLING_RESTART = [Fault("stop", tuple(f"{service}.{n}" for service in SERVICES), 0) for n in (1, 2)]
QUICK = [
    *(Fault("kill", (f"{service}.1",)) for service in SERVICES),
    *(Fault("kill", both(service)) for service in ("timelines", "likes")),
    Fault("hang", ("users.2",), 7),
    Fault("hang", ("timelines.2",), 7),
    Fault("kill", ("registry",)),
    Fault("hang", ("registry",), 4),
    Fault("kill", ("gateway",)),
    *(Fault("kill", (worker,), 1) for worker in WORKERS),
    Fault("stop", tuple(WORKERS), 0),
    Fault("hang", ("timelines_worker",), 4),
    *(Fault("kill", (store,)) for store in ("postgres", "redis", "beanstalkd", "mail")),
    *(Fault("hang", (store,), 4) for store in ("postgres", "redis", "beanstalkd", "dynamodb", "mail")),
    Fault("defer", ("mail",), 7),
    Fault("freeze", ("postgres",), 4),
    Fault("demote", ("redis",), 4),
    # The stand-in keeps nothing over a kill.
    Fault("stop", ("dynamodb",)),
    *ROLLING_RESTART,
]

# What stands on one of two nodes. Stores that are on disks, and workers, are on neither.
NODE = tuple(f"{part}.1" for part in ("registry", *SERVICES, "gateway"))
# Nodes that are silent for a second count as failed; their replicas take a second or two to vote.
REDIS_FAILOVER_SECONDS = 3 + RECOVERY_SECONDS
# The longest of these faults, and what promoting takes.
POSTGRES_FAILOVER_SECONDS = 4 + RECOVERY_SECONDS
# The operator notices within one second. What waits until then has learned of it a second and a half later.
STANDBY_SECONDS = 3
# What was in flight when one of two was killed.
IN_FLIGHT_SECONDS = 2

CLUSTER = [
    Fault("lose", ("redis_cluster",), 10, "a Redis master is killed", REDIS_FAILOVER_SECONDS),
    Fault("hang", ("redis_cluster",), 5, "a Redis master hangs", REDIS_FAILOVER_SECONDS),
    Fault("move", ("redis_cluster",), 3, "slots of Redis move"),
    Fault("lose", ("postgres",), 2, "PostgreSQL fails over", POSTGRES_FAILOVER_SECONDS),
    Fault("kill", ("postgres",), 2, "the PostgreSQL primary crashes"),
    Fault("stop", ("standby",), 4, "the PostgreSQL standby is stopped"),
    Fault("kill", ("standby",), 4, "the PostgreSQL standby is killed", STANDBY_SECONDS),
    Fault("hang", ("standby",), 6, "the PostgreSQL standby hangs", STANDBY_SECONDS),
    # Longer than a job that meets an outage waits between several attempts.
    Fault("kill", ("beanstalkd.1",), 60, "a Beanstalkd is lost for long"),
    Fault("hang", ("beanstalkd.2",), 10, "a Beanstalkd hangs"),
    Fault("kill", ("registry.1",), 3, "a registry comes back empty"),
    Fault("hang", ("registry.2",), 10, "a registry is paused"),
    Fault("kill", both("registry"), 3, "both registries come back empty"),
    Fault("kill", ("gateway.1",), 2, "a gateway is killed", IN_FLIGHT_SECONDS),
    Fault("kill", (*NODE, "beanstalkd.1"), 3, "a node is lost", IN_FLIGHT_SECONDS),
    Fault("stop", NODE, 3, "a node is drained"),
]
ROLLOUT = [
    Fault("stop", (name,), 0, "a rollout")
    for name in (*both("registry"), *WORKERS, *chain(*map(both, SERVICES)), *both("gateway"))
]

# What is done in one go.
Days = Sequence[Sequence[Fault]]
DAYS: Days = [[fault] for fault in QUICK]
CLUSTER_DAYS: Days = [*([fault] for fault in CLUSTER), ROLLOUT]


def shuffled(seed: int, days: Days) -> Iterator[Fault]:
    """The faults for ever, each time in another order, each time of another length."""
    rng = random.Random(seed)
    while True:
        for day in rng.sample(days, len(days)):
            for fault in day:
                yield fault.prolonged(rng.uniform(0.2, 1.5))
