"""A suite on the nodes of a cluster: what may be lost is there twice, and stores are several servers."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import server_processes
import suite
from redis.crc import key_slot

from likes_service.keys import Keys
from tests import plain_http
from tests.faults.processes import SERVICES, STARTERS, Part, PostgresProcess, Process, Suite
from tests.own_server import Kind, OwnServer
from tests.polling import PATIENCE_SECONDS, eventually
from tests.postgres_operator import configure, operate
from tests.redis_cluster import RedisCluster

POSTGRES_URL = "postgresql://postgres:postgres@{}/microblog_{}?target_session_attrs={}"
WRITTEN = "SELECT CAST(pg_current_wal_lsn() AS text)"
# Whether the standby has what had been written.
FOLLOWS = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn >= '{}'"
# What an operator, or a program in that place, takes to see that the standby is lost.
NOTICE_SECONDS = 1
# New connections to a port that two share meet either; so many meet both, but once in 128 times.
CONNECTIONS = 8
KEYS = Keys(is_split=True)
# Of 64 buckets.
MOVED_AT_ONCE = 8


class PostgresServer(PostgresProcess):
    """A primary, or the standby of the primary on that port, as which it is made when it has no data."""

    def __init__(self, folder: Path, primary: Callable[[], int]) -> None:
        port = server_processes.free_port()
        super().__init__(folder.name, port, partial(self._run, folder, port))
        self._folder = folder
        self._primary = primary

    def wipe(self) -> None:
        shutil.rmtree(self._folder / "cluster")

    def _run(self, folder: Path, port: int) -> "subprocess.Popen[bytes]":
        primary = self._primary()
        return server_processes.postgres(folder, port, primary=None if primary == port else primary)._process


class PostgresPair:
    """A primary and its standby. What is acknowledged is on both, so either may be lost."""

    def __init__(self, data: Path) -> None:
        self.primary, self.standby = (
            PostgresServer(data / name, lambda: self.primary.port) for name in ("one", "two")
        )
        self._places = ",".join(f"{server_processes.HOST}:{one.port}" for one in (self.primary, self.standby))

    def variables(self) -> Mapping[str, str]:
        """Whichever of the two is the primary, and whichever is the standby."""
        return {
            f"{name.upper()}_{kind}DATABASE_URL": POSTGRES_URL.format(self._places, name, role)
            for name in ("users", "timelines")
            for kind, role in (("", "read-write"), ("READ_", "standby"))
        }

    def swap(self) -> None:
        operate(self.standby.port, "SELECT pg_promote()")
        self.primary, self.standby = self.standby, self.primary

    def wait_for_standby(self) -> None:
        """Once the standby follows, acknowledge what it has, too. Any sooner, all writes would wait."""
        [(written,)] = operate(self.primary.port, WRITTEN)
        eventually(lambda: operate(self.primary.port, FOLLOWS.format(written)))
        configure(self.primary.port, "SET synchronous_standby_names = '*'")

    def give_standby_up(self) -> None:
        """From now on the primary acknowledges what it has itself."""
        configure(self.primary.port, "RESET synchronous_standby_names")


class Primary:
    """The primary of a pair, and with `lose` and `replace` its failover."""

    def __init__(self, pair: PostgresPair) -> None:
        self._pair = pair
        self._is_lost = False

    def start(self) -> None:
        self._pair.primary.start()
        configure(self._pair.primary.port, "SET hot_standby_feedback = on")
        configure(self._pair.primary.port, "SET wal_retrieve_retry_interval = '1s'")

    def kill(self) -> None:
        self._pair.primary.kill()

    def lose(self) -> None:
        self._pair.primary.kill()
        self._is_lost = True

    def replace(self) -> None:
        self._pair.swap()

    def repair(self) -> None:
        """What was the primary may have what the standby never got: it becomes a copy."""
        if self._is_lost:
            self._pair.standby.wipe()
            self._pair.standby.start()
            self._is_lost = False
        self._pair.wait_for_standby()

    def end(self) -> None:
        self._pair.primary.end()


class Standby:
    """The standby of a pair, and what the operator tells the primary when it goes and comes."""

    def __init__(self, pair: PostgresPair) -> None:
        self._pair = pair

    def start(self) -> None:
        self._pair.standby.start()
        self._pair.wait_for_standby()

    def stop(self) -> None:
        self._pair.give_standby_up()
        self._pair.standby.stop()

    def kill(self) -> None:
        self._pair.standby.kill()
        Event().wait(NOTICE_SECONDS)
        self._pair.give_standby_up()

    def hang(self) -> None:
        self._pair.standby.hang()
        Event().wait(NOTICE_SECONDS)
        self._pair.give_standby_up()

    def resume(self) -> None:
        self._pair.standby.resume()
        self._pair.wait_for_standby()

    def repair(self) -> None:
        """Nothing is left to do."""

    def end(self) -> None:
        self._pair.standby.end()


class RedisNodes:
    """A Redis Cluster of three masters, of which one after the other is lost; and buckets that move."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._servers: list[OwnServer] = []
        self._turns = cycle(range(3))

    @property
    def url(self) -> str:
        return self._cluster.url

    def start(self) -> None:
        self._cluster = RedisCluster(self._own)

    def lose(self) -> None:
        self._next_master().kill()

    def replace(self) -> None:
        """Its replica has taken its place: what is back is the replica's replica."""
        self._cluster.mend()

    def hang(self) -> None:
        self._hung = self._next_master()
        self._hung.hang()

    def resume(self) -> None:
        self._hung.resume()
        self._cluster.mend()

    def move(self) -> None:
        """Begin to move some buckets. What reads one key goes on; likes of their posts may have to wait."""
        masters, turn = self._cluster.masters(), next(self._turns)
        source, target = masters[turn], masters[turn - 1]
        keys = [KEYS.popular(bucket) for bucket in KEYS.buckets]
        here = (key for key in keys if self._cluster.master_of(key) is source)
        self._moving = [(key_slot(key.encode()), source, target) for key in islice(here, MOVED_AT_ONCE)]
        for move in self._moving:
            self._cluster.begin_move(*move)

    def settle(self) -> None:
        for move in self._moving:
            self._cluster.end_move(*move)

    def repair(self) -> None:
        """Nothing is left to do."""

    def end(self) -> None:
        for server in self._servers:
            server.stop()

    def _next_master(self) -> OwnServer:
        self._cluster.fail_over_soon()
        return self._cluster.masters()[next(self._turns)]

    def _own(self, kind: Kind) -> OwnServer:
        server = OwnServer(kind, self._data / str(len(self._servers)) / "data")
        self._servers.append(server)
        return server


class ClusterSuite(Suite):
    """Two of each but the workers; gateways share a port. Likes and limits are in a Redis Cluster."""

    # One machine has all of the cluster.
    pause_seconds = 0.6
    twice = ("registry", *SERVICES, "gateway")

    def __init__(self, data: Path) -> None:
        self._postgres = PostgresPair(data / "stores" / "postgres")
        self._redis = RedisNodes(data / "stores" / "redis")
        self._gateway_port = server_processes.free_port()
        super().__init__(data)

    def is_whole(self) -> bool:
        """Whether both gateways know two instances of every service, all of them well."""
        if not all(gateway.listens() for gateway in self._of("gateway")):
            return False
        whole = super().is_whole
        return all(whole() for _ in range(CONNECTIONS))

    def is_redundant(self) -> bool:
        """Whether each registry knows all, and no process misses one of two servers."""
        try:
            return all(map(_knows_two_of_each, self._of("registry"))) and all(
                _misses_nothing(process)
                for name, process in self.processes.items()
                if name.partition(".")[0] not in ("registry", "gateway")
            )
        except httpx2.TransportError:
            return False

    def variables(self) -> Mapping[str, str]:
        return {
            **super().variables(),
            **self._postgres.variables(),
            "REGISTRY_URL": ",".join(f"http://{one.place}" for one in self._of("registry")),
            "BEANSTALKD_HOST": ",".join(one.place for one in self._of("beanstalkd")),
            "REDIS_URL": self._redis.url,
            "RATE_LIMIT": "200/s burst 1000",
            "RATE_LIMIT_STORAGE": self._redis.url,
            "REUSE_PORT": "true",
        }

    def _stores(self) -> Iterator[tuple[str, Part]]:
        yield "postgres", Primary(self._postgres)
        yield "standby", Standby(self._postgres)
        yield "redis_cluster", self._redis
        for start in STARTERS:
            if start is server_processes.beanstalkd:
                yield from ((name, self._store(name, start)) for name in ("beanstalkd.1", "beanstalkd.2"))
            elif start not in (server_processes.postgres, server_processes.redis):
                yield start.__name__, self._store(start.__name__, start)

    def _port_of(self, line: suite.Line) -> int:
        return self._gateway_port if line.name == "gateway" else super()._port_of(line)


def _knows_two_of_each(registry: Process) -> bool:
    found = _ask(registry, "/status")["services"]
    return all((one := found.get(name)) and one["instances"] == one["up"] == 2 for name in SERVICES)


def _misses_nothing(process: Process) -> bool:
    health = _ask(process, "/health")
    return health["status"] == "ok" and not health.get("warnings")


def _ask(process: Process, path: str) -> Any:
    return plain_http.get(f"http://{process.place}{path}", timeout=PATIENCE_SECONDS).json()
