"""A Redis Cluster of three masters with a replica each: real ones, which a test may kill."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
import server_processes
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.own_server import Own, OwnServer
from tests.polling import eventually

MASTERS = 3
SIZE = 2 * MASTERS
# After which a node that is away counts as failed: never on a busy machine, but where a test wants it soon.
PATIENT_MS, IMPATIENT_MS = 60_000, 1000
MOVED_AT_ONCE = 100
# A node has its cluster bus so far above its port. From the last port on, Linux takes them for outgoing ones.
BUS, LAST_PORT = 10_000, 32_768


class RedisCluster:
    """Six servers, which agree on who has which slot."""

    def __init__(self, own: Own) -> None:
        self.servers = [own(_node) for _ in range(SIZE)]
        for server in self.servers:
            server.port = _free_port()
        self._raws = {
            server.port: redis.Redis(port=server.port, decode_responses=True, socket_timeout=5)
            for server in self.servers
        }
        for server in self.servers:
            server.start()
        self._introduce()
        for place, server in enumerate(self.servers[MASTERS:]):
            self._ask(server, "CLUSTER REPLICATE", self.node_id(self.servers[place]))
        eventually(self.is_whole)

    @property
    def url(self) -> str:
        """It names one node that is away, and two of the six."""
        ports = server_processes.free_port(), self.servers[0].port, self.servers[-1].port
        return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports)}"

    def raw(self, server: OwnServer) -> redis.Redis:
        """A server as an operator sees it."""
        return self._raws[server.port]

    def node_id(self, server: OwnServer) -> str:
        found: str = self._ask(server, "CLUSTER MYID")
        return found

    def masters(self) -> list[OwnServer]:
        return [server for server in self.servers if self._role(server) == "master"]

    def master_of(self, key: str) -> OwnServer:
        """The server in which a key is."""
        slot = key_slot(key.encode())
        ranges = self._ask(self.masters()[0], "CLUSTER SLOTS")
        port = next(master[1] for first, last, master, *_ in ranges if first <= slot <= last)
        return next(server for server in self.servers if server.port == port)

    def find(self, key: str) -> redis.Redis:
        return self.raw(self.master_of(key))

    def flush(self) -> None:
        for server in self.masters():
            self.raw(server).flushall()

    def is_whole(self) -> bool:
        """Whether every server serves, and three of them are replicas that have all there is."""
        try:
            states = [self.raw(server).info("replication") for server in self.servers]
            oks = [self._ask(server, "CLUSTER INFO") for server in self.servers]
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        links = [state["master_link_status"] for state in states if state["role"] == "slave"]
        return links == ["up"] * MASTERS and all(ok["cluster_state"] == "ok" for ok in oks)

    def mend(self) -> None:
        """Start what was killed, and wait until the cluster is whole."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        eventually(self.is_whole)
        self._set_timeout(PATIENT_MS, self.servers)

    def fail_over_soon(self, lost: OwnServer | None = None) -> None:
        """Until the cluster is mended, a master that is lost, or will be, has a successor within seconds."""
        self._set_timeout(IMPATIENT_MS, [server for server in self.servers if server is not lost])

    def begin_move(self, slot: int, source: OwnServer, target: OwnServer) -> None:
        """From now on the keys of a slot may be at either server."""
        self._ask(target, "CLUSTER SETSLOT", slot, "IMPORTING", self.node_id(source))
        self._ask(source, "CLUSTER SETSLOT", slot, "MIGRATING", self.node_id(target))

    def end_move(self, slot: int, source: OwnServer, target: OwnServer) -> None:
        while keys := self._ask(source, "CLUSTER GETKEYSINSLOT", slot, MOVED_AT_ONCE):
            self.raw(source).migrate("127.0.0.1", target.port, keys, 0, 5000)
        new = self.node_id(target)
        for server in (target, source, *self.masters()):
            self._ask(server, "CLUSTER SETSLOT", slot, "NODE", new)

    def _set_timeout(self, milliseconds: int, servers: Iterable[OwnServer]) -> None:
        for server in servers:
            self.raw(server).config_set("cluster-node-timeout", milliseconds)

    def _introduce(self) -> None:
        first = self.servers[0]
        step = REDIS_CLUSTER_HASH_SLOTS // MASTERS + 1
        for place, server in enumerate(self.servers):
            self._ask(server, "CLUSTER SET-CONFIG-EPOCH", place + 1)
            if place < MASTERS:
                end = min((place + 1) * step, REDIS_CLUSTER_HASH_SLOTS)
                self._ask(server, "CLUSTER ADDSLOTS", *range(place * step, end))
            if server is not first:
                self._ask(server, "CLUSTER MEET", "127.0.0.1", first.port)
        eventually(lambda: all(self._knows_all(server) for server in self.servers))

    def _knows_all(self, server: OwnServer) -> bool:
        nodes: dict[str, dict[str, str]] = self._ask(server, "CLUSTER NODES")
        return len(nodes) == SIZE and not any("handshake" in node["flags"] for node in nodes.values())

    def _ask(self, server: OwnServer, *command: object) -> Any:
        return self.raw(server).execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's own

    def _role(self, server: OwnServer) -> str | None:
        try:
            role: str = self.raw(server).info("replication")["role"]
        except redis.ConnectionError:
            return None
        return role


def _free_port() -> int:
    """A port like any of `server_processes`, whose bus is on such a port, too."""
    ports = iter(server_processes.free_port, None)
    return next(one for one in ports if one + BUS < LAST_PORT and server_processes.is_free(one + BUS))


def _node(data: Path, port: int) -> server_processes.Server:
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(PATIENT_MS)]
    options += ["--repl-diskless-sync-delay", "0"]
    # So that a master that is back before it has a successor has its data.
    options += ["--appendonly", "yes"]
    return server_processes.redis(data, port, durable=False, options=options)
