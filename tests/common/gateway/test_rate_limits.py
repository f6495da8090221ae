"""Who is let in how often, counted in memory and in a real Redis."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest
import redis
import server_processes
from throttled.rate_limiter import per_hour

from common.errors import TooManyRequests
from common.gateway import rate_limits
from common.gateway.rate_limits import Caller, Limiter, Policy, SharedRedis
from common.tokens import Tokens
from tests.forwarder import forwarder
from tests.own_server import Own, OwnServer
from tests.polling import PATIENCE_SECONDS, eventually
from tests.redis_cluster import RedisCluster
from tests.sentinels import Watched

# No token comes back while a test goes on.
ORDINARY = Policy("ordinary", per_hour(1, burst=3))
ANYBODY = Caller("192.0.2.1")


@pytest.fixture
def limiting(tokens: Tokens, run) -> Iterator[Callable[..., Limiter]]:
    """Make a limiter that counts in this Redis, or in memory."""
    made: list[Limiter] = []

    def make(redis_url: str = "") -> Limiter:
        made.append(Limiter(tokens, SharedRedis(redis_url) if redis_url else None))
        return made[-1]

    yield make
    for limiter in made:
        run(limiter.__aexit__())


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest, limiting) -> Limiter:
    return limiting(request.getfixturevalue("redis_url") if request.param == "redis" else "")


async def _admitted(limiter: Limiter, *callers: Caller) -> int:
    count = 0
    for caller in callers:
        try:
            await limiter.check(ORDINARY, caller)
        except TooManyRequests:
            continue
        count += 1
    return count


@pytest.fixture
def admitted(limiter: Limiter, run) -> Callable[..., int]:
    """How many of these are let in."""
    return lambda *callers: run(_admitted(limiter, *callers))


def test_a_burst_is_let_in_and_no_more(admitted) -> None:
    assert admitted(*[ANYBODY] * 10) == 3


def test_every_address_has_a_bucket_of_its_own(admitted) -> None:
    assert admitted(*[Caller("192.0.2.1")] * 5, *[Caller("192.0.2.2")] * 5) == 6


def test_the_addresses_of_one_customer_are_one(admitted) -> None:
    assert admitted(*[Caller(f"2001:db8::{n:x}") for n in range(5)]) == 3
    assert admitted(Caller("2001:db8:0:1::1")) == 1


def test_an_ipv4_address_is_the_same_in_ipv6(admitted) -> None:
    assert admitted(*[Caller("::ffff:192.0.2.1"), Caller("192.0.2.1")] * 3) == 3


def test_a_user_has_one_bucket_wherever_they_are(admitted, tokens: Tokens) -> None:
    alice = [Caller(f"192.0.2.{n}", tokens.issue("alice").encode()) for n in range(5)]

    assert admitted(*alice) == 3
    assert admitted(Caller("192.0.2.1", tokens.issue("bob").encode())) == 1


def test_a_bad_token_is_nobodys(admitted) -> None:
    assert admitted(*[Caller("192.0.2.1", f"no token {n}".encode()) for n in range(5)]) == 3


def test_who_is_refused_learns_when_to_come_again(limiter: Limiter, run) -> None:
    async def exhaust() -> None:
        for _ in range(4):
            await limiter.check(ORDINARY, ANYBODY)

    with pytest.raises(TooManyRequests) as refused:
        run(exhaust())

    headers = refused.value.headers
    assert 3000 < int(headers["Retry-After"]) <= 3600
    assert headers["RateLimit-Policy"].startswith('"ordinary";q=3;w=')
    assert headers["RateLimit"].startswith('"ordinary";r=0;t=')


def test_gateways_that_share_a_redis_count_together(limiting, redis_url: str, run) -> None:
    gateways = [limiting(redis_url) for _ in range(2)]

    assert [run(_admitted(one, ANYBODY, ANYBODY)) for one in gateways] == [2, 1]


def test_a_redis_that_is_away_is_done_without(limiting, run, caplog: pytest.LogCaptureFixture) -> None:
    limiter = limiting(f"redis://127.0.0.1:{server_processes.free_port()}/0")

    assert run(_admitted(limiter, *[ANYBODY] * 10)) == 3
    assert len(caplog.records) == 1


@pytest.fixture
def own_redis(own: Own) -> OwnServer:
    """A Redis that the test may hang."""
    server = own(server_processes.redis)
    server.start()
    return server


@pytest.mark.kills
def test_a_redis_that_hangs_is_waited_for_once(
    limiting, run, own_redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rate_limits, "REDIS_RETRY_SECONDS", 3600)
    limiter = limiting(f"redis://127.0.0.1:{own_redis.port}/0")
    own_redis.hang()

    assert run(_admitted(limiter, *[ANYBODY] * 100)) == 3
    assert len(caplog.records) == 1


@pytest.mark.kills
def test_a_redis_that_stops_answering_doubles_nothing(limiting, run, own_redis) -> None:
    limiter = limiting(f"redis://127.0.0.1:{own_redis.port}/0")
    before = run(_admitted(limiter, *[ANYBODY] * 2))
    own_redis.hang()

    assert before + run(_admitted(limiter, *[ANYBODY] * 10)) == 3


@pytest.fixture
def persistent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis has all the time it takes, and is asked again at once after a failure."""
    monkeypatch.setattr(rate_limits, "REDIS_RETRY_SECONDS", 0)
    monkeypatch.setattr(rate_limits, "REDIS_SECONDS", PATIENCE_SECONDS)


@pytest.mark.kills
@pytest.mark.usefixtures("persistent")
def test_a_redis_that_becomes_a_replica_is_done_without_and_counted_in_when_it_is_a_master_again(
    limiting, run, own_redis
) -> None:
    gateways = [limiting(f"redis://127.0.0.1:{own_redis.port}/0") for _ in range(2)]
    raw = redis.Redis(port=own_redis.port)
    run(_admitted(gateways[0], ANYBODY))
    raw.replicaof("127.0.0.1", str(server_processes.free_port()))
    alone = [run(_admitted(one, ANYBODY)) for one in gateways]
    raw.replicaof("NO", "ONE")

    assert (alone, run(_admitted(gateways[1], *[ANYBODY] * 10))) == ([1, 1], 2)


@pytest.mark.kills
@pytest.mark.usefixtures("persistent")
def test_gateways_count_on_in_the_master_that_a_name_leads_to(limiting, run, own: Own) -> None:
    before, after = own(server_processes.redis), own(server_processes.redis)
    before.start()
    after.start()
    with forwarder(before.port) as name:
        limiter = limiting(f"redis://127.0.0.1:{name.port}/0")
        run(_admitted(limiter, ANYBODY))
        redis.Redis(port=before.port).replicaof("127.0.0.1", str(after.port))
        name.target = after.port

        run(_admitted(limiter, ANYBODY, ANYBODY))

    assert redis.Redis(port=after.port).dbsize() == 1


@pytest.mark.kills
@pytest.mark.usefixtures("persistent")
def test_gateways_count_on_in_the_master_that_the_sentinels_have_chosen(limiting, run, own: Own) -> None:
    watched = Watched(own)
    limiter = limiting(watched.url)
    run(_admitted(limiter, ANYBODY))
    watched.master.kill()
    addresses = count()

    def is_counted() -> bool:
        run(_admitted(limiter, Caller(f"192.0.2.{next(addresses)}")))
        return watched.raw(watched.replica).dbsize() > 1

    eventually(is_counted)


@pytest.mark.kills
@pytest.mark.usefixtures("persistent")
def test_gateways_that_share_a_cluster_count_together_and_go_on_when_a_master_is_lost(
    limiting, run, cluster: RedisCluster
) -> None:
    gateways = [limiting(cluster.url) for _ in range(2)]
    # As many that some of their buckets are at each master.
    callers = [Caller(f"192.0.2.{number}") for number in range(20)]
    together = [run(_admitted(one, *callers, *callers)) for one in gateways]
    cluster.fail_over_soon()
    cluster.masters()[0].kill()
    new = (Caller(f"192.0.3.{number}") for number in count())

    def counts_together_again() -> bool:
        caller = next(new)
        return [run(_admitted(one, caller, caller)) for one in gateways] == [2, 1]

    assert together == [40, 20]
    eventually(lambda: all(counts_together_again() for _ in range(20)))
