"""A queueing model of the suite: instances with a core each, a choice among them, shared stores."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace

# Microseconds of CPU of a request of each kind, by process and store.
Demands = Mapping[str, Mapping[str, float]]

# In the order in which a request meets them. A process has one core, PostgreSQL has several.
PROCESSES = ("gateway", "timelines", "likes", "polls", "users")
STORES = {"postgres": 4, "redis": 1, "beanstalkd": 1}
# Each client asks again as soon as it is answered: so many for each instance keep it busy.
CLIENTS = 64
SECONDS, WARM_UP_SECONDS = 60.0, 5.0


@dataclass
class Station:
    """A process or a store, whose cores take work in the order in which it comes."""

    free_at: list[float]
    in_flight: int = 0
    busy: float = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """When work that comes now is done."""
        done = max(now, self.free_at[0]) + seconds
        heapreplace(self.free_at, done)
        self.busy += seconds
        return done


Visits = list[tuple[Station, float]]


class Suite:
    """So many instances of each process, and one of each store, under as much load as they take."""

    def __init__(self, instances: int, demands: Demands, shares: Mapping[str, float], seed: int = 1) -> None:
        self._demands = demands
        self._shares = shares
        self._dice = random.Random(seed)
        self._parts = {name: [Station([0.0]) for _ in range(instances)] for name in PROCESSES}
        self._parts |= {name: [Station([0.0] * cores)] for name, cores in STORES.items()}
        self._clients = CLIENTS * instances

    def rate(self) -> float:
        """Requests a second."""
        # When each client goes on, and what is left to do for its request.
        events: list[tuple[float, int, Visits]] = [
            (self._dice.random(), client, []) for client in range(self._clients)
        ]
        heapify(events)
        requests: list[Visits] = [[] for _ in range(self._clients)]
        answered = 0
        while events[0][0] < WARM_UP_SECONDS + SECONDS:
            now, client, left = heappop(events)
            if not left:
                answered += now > WARM_UP_SECONDS
                for station, _ in requests[client]:
                    station.in_flight -= 1
                requests[client] = self._request()
                left = requests[client]
            (station, seconds), *left = left
            heappush(events, (station.serve(now, seconds), client, left))
        return answered / SECONDS

    def busy(self) -> dict[str, float]:
        """The share of the time for which the cores of each part are busy."""
        return {
            name: sum(one.busy for one in stations)
            / sum(len(one.free_at) for one in stations)
            / (WARM_UP_SECONDS + SECONDS)
            for name, stations in self._parts.items()
        }

    def _request(self) -> Visits:
        """What it takes of which instance."""
        [kind] = self._dice.choices(list(self._shares), list(self._shares.values()))
        visits = [
            (self._choose(self._parts[name]), self._dice.expovariate(1e6 / mean))
            for name, mean in self._demands[kind].items()
            if name in self._parts and mean > 0
        ]
        for station, _ in visits:
            station.in_flight += 1
        return visits

    def _choose(self, stations: list[Station]) -> Station:
        """The less busy of two at random, as in common/discovery/balancer.py."""
        return min(self._dice.sample(stations, min(2, len(stations))), key=lambda one: one.in_flight)
