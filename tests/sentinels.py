"""A master, its replica and a sentinel that watches them: real ones, which a test may kill."""

from functools import partial
from pathlib import Path

import redis
import server_processes

from tests.own_server import Own, OwnServer
from tests.polling import eventually

MASTER = "main"
PASSWORD = "secret"
SENTINEL_PASSWORD = "watchword"


class Watched:
    """One replica and one sentinel, all with passwords: a killed master has a successor in a second."""

    def __init__(self, own: Own) -> None:
        self.master, self.replica = own(server_processes.redis), own(server_processes.redis)
        for server in (self.master, self.replica):
            server.start()
        self._protect()
        self.sentinel = own(partial(sentinel, self.master.port))
        self.sentinel.start()
        self._await_replica()

    @property
    def url(self) -> str:
        # The first of the sentinels is away.
        nodes = f"127.0.0.1:{server_processes.free_port()},127.0.0.1:{self.sentinel.port}"
        return f"redis+sentinel://:{PASSWORD}@{nodes}/{MASTER}/3?sentinel_password={SENTINEL_PASSWORD}"

    def raw(self, server: OwnServer) -> redis.Redis:
        return redis.Redis(port=server.port, password=PASSWORD, db=3)

    def _protect(self) -> None:
        for server in (self.replica, self.master):
            with redis.Redis(port=server.port) as raw:
                raw.config_set("masterauth", PASSWORD)
                if server is self.replica:
                    raw.replicaof("127.0.0.1", str(self.master.port))
                raw.config_set("requirepass", PASSWORD)
        eventually(lambda: self.raw(self.replica).info("replication")["master_link_status"] == "up")

    def _await_replica(self) -> None:
        with redis.Redis(port=self.sentinel.port, password=SENTINEL_PASSWORD, decode_responses=True) as raw:
            eventually(lambda: len(raw.sentinel_slaves(MASTER)) == 1)


def sentinel(master: int, data: Path, port: int) -> server_processes.Server:
    """A sentinel of this master. It writes what it learns into its configuration."""
    data.mkdir(parents=True, exist_ok=True)
    config = data / "sentinel.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {data}\n"
        f"sentinel monitor {MASTER} 127.0.0.1 {master} 1\n"
        f"sentinel auth-pass {MASTER} {PASSWORD}\n"
        f"sentinel down-after-milliseconds {MASTER} 500\n"
        f"requirepass {SENTINEL_PASSWORD}\n"
    )
    command = [server_processes._binary("redis-server"), str(config), "--sentinel"]

    def answers() -> None:
        with redis.Redis(port=port, password=SENTINEL_PASSWORD) as client:
            client.ping()

    return server_processes._start("sentinel", port, command, data, answers)
