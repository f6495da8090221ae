"""What Redis's errors mean: from real servers in each state, or word for word where that cannot be."""

import re
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from threading import Thread
from uuid import UUID

import pytest
import redis
import server_processes
from fastapi.testclient import TestClient

from common.errors import CannotServe, CredentialsRejected
from likes_service.app import create_app
from likes_service.store import LikesStore
from tests.forwarder import Forwarder, forwarder
from tests.likes_service.conftest import LATER, NOW, settings
from tests.own_server import Own, OwnServer
from tests.polling import eventually, succeeds
from tests.replication import is_replicated
from tests.sentinels import Watched

COMMAND = re.compile(rb"^\*\d+\r$", re.MULTILINE)
# Redis's own words, and those of proxies without a Redis.
REPLIES = {
    "LOADING Redis is loading the dataset in memory": "is loading its data",
    "BUSY Redis is busy running a script.": "is busy with a script",
    "UNKILLABLE Sorry the script already executed write commands": "is busy with a script",
    "MISCONF Redis is configured to save RDB snapshots, but": "cannot write to its disk",
    "ERR Error running script (call to f_1): @user_script:6: @user_script: 6: -MISCONF Errors": "its disk",
    "ERR max number of clients reached": "has as many clients as it takes",
    "CLUSTERDOWN The cluster is down": "is a node of a cluster",
    "MOVED 3999 192.0.2.1:6381": "is a node of a cluster",
    "ASK 3999 192.0.2.1:6381": "is a node of a cluster",
    "TRYAGAIN Multiple keys request during rehashing of slot": "is a node of a cluster",
    "CROSSSLOT Keys in request don't hash to the same slot": "is a node of a cluster",
    "ERR Connection refused": "responds with an error",
    "ERR no backend at 192.0.2.1:6379 script: 0f, on @user_script:3.": "responds with an error",
    "no upstream host": "responds with an error",
}


@contextmanager
def replying(reply: str) -> Iterator[int]:
    """The port of a server that says the same to every command."""

    class Reply(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(65536):
                self.request.sendall(f"{reply}\r\n".encode() * len(COMMAND.findall(data)))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Reply) as server:
        server.daemon_threads = True
        server.block_on_close = False
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


NUMBERS = count()


def _like(store: LikesStore, post_id: UUID) -> None:
    """A like that is new: repeating one writes nothing, so that a server that takes none says nothing."""
    store.like(post_id, f"user{next(NUMBERS)}", NOW, LATER)


def _calls(store: LikesStore, post_id: UUID) -> tuple[Callable[[], object], ...]:
    return store.ping, lambda: _like(store, post_id)


@pytest.mark.parametrize(("reply", "reason"), REPLIES.items(), ids=lambda text: text.split()[0])
def test_a_server_that_says_it_cannot_is_an_outage_with_a_reason(
    post_id: UUID, reply: str, reason: str
) -> None:
    with replying(f"-{reply}") as port:
        store = LikesStore.connect(f"redis://127.0.0.1:{port}/0")
        for call in _calls(store, post_id):
            with pytest.raises(CannotServe, match=reason) as refused:
                call()
            assert "192.0.2.1" not in str(refused.value)


def test_what_an_unknown_error_says_is_in_the_log(post_id: UUID, caplog: pytest.LogCaptureFixture) -> None:
    with replying("-ERR no backend") as port, pytest.raises(CannotServe):
        _like(LikesStore.connect(f"redis://127.0.0.1:{port}/0"), post_id)

    assert caplog.messages == ["Redis responds: ERR no backend"]


@pytest.mark.parametrize("reply", ["-NOSCRIPT No matching script.", "HTTP/1.1 400 Bad Request"])
def test_a_server_that_is_no_redis_is_an_outage(post_id: UUID, reply: str) -> None:
    with replying(reply) as port, pytest.raises(LikesStore.outages):
        _like(LikesStore.connect(f"redis://127.0.0.1:{port}/0"), post_id)


@pytest.mark.parametrize(
    "reply",
    [
        "-ERR user_script:1: Script attempted to access nonexistent global variable 'foo' script: 0f",
        "-ERR Error compiling script (new function): user_script:1: unexpected symbol near 'return'",
        "-ERR value is not a valid float script: 0f, on @user_script:1.",
    ],
)
def test_a_mistake_of_ours_is_no_outage(post_id: UUID, reply: str) -> None:
    with replying(reply) as port, pytest.raises(redis.ResponseError) as mistake:
        _like(LikesStore.connect(f"redis://127.0.0.1:{port}/0"), post_id)
    assert not isinstance(mistake.value, LikesStore.outages)


def test_a_key_of_another_type_is_no_outage(store: LikesStore, raw_redis: redis.Redis, post_id: UUID) -> None:
    raw_redis.set(f"likes:post:{post_id}", "overwritten")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE") as corrupt:
        _like(store, post_id)
    assert not isinstance(corrupt.value, LikesStore.outages)


@pytest.fixture
def own_redis(own: Own) -> OwnServer:
    server = own(server_processes.redis)
    server.start()
    return server


def _raw(port: int) -> redis.Redis:
    return redis.Redis(port=port, decode_responses=True)


TOO_FEW = "has too few replicas"
STATES: dict[str, Callable[[redis.Redis], object]] = {
    "is out of memory": lambda raw: raw.config_set("maxmemory", "1"),
    TOO_FEW: lambda raw: raw.config_set("min-replicas-to-write", "1"),
    "is a read-only replica": lambda raw: raw.replicaof("127.0.0.1", str(server_processes.free_port())),
    "is a replica without its master": lambda raw: (
        raw.config_set("replica-serve-stale-data", "no"),
        raw.replicaof("127.0.0.1", str(server_processes.free_port())),
    ),
}


@pytest.mark.kills
@pytest.mark.parametrize(("reason", "enter"), STATES.items(), ids=STATES.keys())
def test_a_server_in_a_state_that_takes_no_likes_says_so_to_the_ping(
    own_redis: OwnServer, post_id: UUID, reason: str, enter: Callable[[redis.Redis], object]
) -> None:
    store = LikesStore.connect(f"redis://127.0.0.1:{own_redis.port}/0")
    _like(store, post_id)
    if reason == TOO_FEW and _raw(own_redis.port).info("server")["redis_version"] < "7":
        pytest.skip("before Redis 7, a script writes with too few replicas, too")
    enter(_raw(own_redis.port))

    for call in _calls(store, post_id):
        with pytest.raises(CannotServe, match=reason):
            call()


@pytest.mark.kills
@pytest.mark.parametrize("right", ["-evalsha", "-zadd", "resetkeys"])
def test_a_right_that_is_missing_is_told_apart_from_an_outage(
    own_redis: OwnServer, post_id: UUID, right: str
) -> None:
    raw = _raw(own_redis.port)
    raw.execute_command("ACL SETUSER likes on >secret ~* +@all")
    store = LikesStore.connect(f"redis://likes:secret@127.0.0.1:{own_redis.port}/0")
    _like(store, post_id)
    raw.execute_command(f"ACL SETUSER likes {right}")

    for call in _calls(store, post_id):
        with pytest.raises(CredentialsRejected, match="rejects user likes: correct REDIS_URL"):
            call()


def test_a_ping_leaves_nothing(store: LikesStore, raw_redis: redis.Redis) -> None:
    store.ping()

    assert raw_redis.keys() == []


@pytest.fixture
def pair(own: Own) -> tuple[OwnServer, OwnServer]:
    """A master and its replica."""
    servers = own(server_processes.redis), own(server_processes.redis)
    for server in servers:
        server.start()
    _follow(servers[1], servers[0])
    return servers


def _follow(replica: OwnServer, master: OwnServer) -> None:
    raw = _raw(replica.port)
    raw.replicaof("127.0.0.1", str(master.port))
    eventually(lambda: raw.info("replication")["master_link_status"] == "up")


def _swap(name: Forwarder, master: OwnServer, replica: OwnServer) -> None:
    """The replica becomes the master, and the name leads to it."""
    eventually(lambda: is_replicated(_raw(master.port)))
    _raw(replica.port).replicaof("NO", "ONE")
    _follow(master, replica)
    name.target = replica.port


@pytest.mark.kills
def test_after_a_role_swap_behind_a_name_the_next_but_one_command_is_with_the_new_master(
    pair: tuple[OwnServer, OwnServer], post_id: UUID
) -> None:
    with forwarder(pair[0].port) as name:
        store = LikesStore.connect(f"redis://127.0.0.1:{name.port}/0")
        _like(store, post_id)
        _swap(name, *pair)
        with pytest.raises(CannotServe):
            _like(store, post_id)

        _like(store, post_id)

    assert _raw(pair[1].port).zcard(f"likes:post:{post_id}") == 2


@pytest.mark.kills
def test_a_connection_in_use_at_a_role_swap_is_replaced_as_well(
    pair: tuple[OwnServer, OwnServer], post_id: UUID
) -> None:
    with forwarder(pair[0].port) as name:
        store = LikesStore.connect(f"redis://127.0.0.1:{name.port}/0")
        pool = store._redis.connection_pool
        busy = pool.get_connection()
        store.count(post_id)
        _swap(name, *pair)
        with pytest.raises(CannotServe):
            _like(store, post_id)
        pool.release(busy)

        _like(store, post_id)


@pytest.mark.kills
def test_after_a_hang_every_connection_is_a_new_one(pair: tuple[OwnServer, OwnServer], post_id: UUID) -> None:
    with forwarder(pair[0].port) as name:
        store = LikesStore.connect(f"redis://127.0.0.1:{name.port}/0", threads=8)
        pool = store._redis.connection_pool
        for connection in [pool.get_connection() for _ in range(8)]:
            pool.release(connection)
        pair[0].hang()
        _raw(pair[1].port).replicaof("NO", "ONE")
        name.target = pair[1].port
        with pytest.raises(redis.TimeoutError):
            _like(store, post_id)

        # All others would have to time out, one a second.
        eventually(lambda: succeeds(lambda: _like(store, post_id), LikesStore.outages))
        assert all(not connection._sock for connection in pool._available_connections[:-1])


@pytest.mark.kills
def test_likes_go_to_the_master_that_the_sentinels_have_chosen(own: Own, post_id: UUID) -> None:
    watched = Watched(own)
    store = LikesStore.connect(watched.url)
    _like(store, post_id)
    eventually(lambda: watched.raw(watched.replica).zcard(f"likes:post:{post_id}") == 1)
    watched.master.kill()
    with pytest.raises(LikesStore.outages):
        store.ping()

    eventually(lambda: succeeds(lambda: _like(store, post_id), LikesStore.outages))
    assert watched.raw(watched.replica).zcard(f"likes:post:{post_id}") > 1


@pytest.mark.kills
def test_sentinels_that_know_no_master_are_an_outage(own: Own, post_id: UUID) -> None:
    watched = Watched(own)
    store = LikesStore.connect(watched.url.replace("/main/", "/unknown/"))

    with pytest.raises(CannotServe, match="has no master that a sentinel knows"):
        _like(store, post_id)


@pytest.mark.kills
def test_health_says_what_redis_is_and_is_well_again_after_it(own_redis: OwnServer) -> None:
    app = create_app(settings(redis_url=f"redis://127.0.0.1:{own_redis.port}/0"))
    raw = _raw(own_redis.port)
    with TestClient(app) as client:
        eventually(lambda: client.get("/health").json()["checks"]["redis"] == "ok")
        raw.replicaof("127.0.0.1", str(server_processes.free_port()))
        replica = client.get("/health")
        raw.replicaof("NO", "ONE")
        master = client.get("/health")

    assert (replica.status_code, replica.json()["reasons"]["redis"]) == (503, "is a read-only replica")
    assert master.json()["checks"]["redis"] == "ok"


RISKS = {
    ("maxmemory-policy", "allkeys-lru"): "maxmemory-policy allkeys-lru deletes likes",
    ("maxmemory-policy", "volatile-ttl"): "maxmemory-policy volatile-ttl deletes likes",
    ("appendonly", "no"): "without an append-only file",
}


@pytest.mark.kills
@pytest.mark.parametrize(("setting", "risk"), RISKS.items(), ids=" ".join)
def test_a_setting_that_can_lose_likes_is_warned_of(
    own_redis: OwnServer, setting: tuple[str, str], risk: str
) -> None:
    store = LikesStore.connect(f"redis://127.0.0.1:{own_redis.port}/0")
    assert store.ping() is None
    _raw(own_redis.port).config_set(*setting)

    assert risk in (store.ping() or "")


@pytest.mark.kills
def test_a_user_who_may_not_see_the_settings_may_like(own_redis: OwnServer, post_id: UUID) -> None:
    raw = _raw(own_redis.port)
    raw.execute_command("ACL SETUSER likes on >secret ~* +@all -info -config")
    store = LikesStore.connect(f"redis://likes:secret@127.0.0.1:{own_redis.port}/0")

    assert store.ping() is None
    _like(store, post_id)
