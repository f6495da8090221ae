"""Who is let in how often, counted in memory and in a real Redis."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
import servers
from throttled.rate_limiter import per_hour, per_min

from common.errors import TooManyRequests
from common.gateway.rate_limits import Limiter, Policy, SignInPolicy
from common.tokens import Tokens
from tests.waiting import BUSY_SECONDS

ORDINARY = Policy("ordinary", per_min(60, burst=3))
LOGIN = SignInPolicy("login", per_min(60_000, burst=60_000), guesses=per_hour(30, burst=20))
JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Asking:
    client: str = "192.0.2.1"
    bearer: bytes | None = None
    content_type: bytes = JSON
    held_body: bytes = b""


def guess(account: str, client: str = "192.0.2.1") -> Asking:
    body = {"username": account, "password": "guess"}
    return Asking(client, held_body=json.dumps(body).encode())


@pytest.fixture
def redis_url(redis_port: int) -> str:
    with redis.Redis(port=redis_port, db=3) as client:
        client.flushdb()
    return f"redis://127.0.0.1:{redis_port}/3"


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """Run a coroutine, all of them in one event loop."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def limiting(tokens: Tokens, run) -> Iterator[Callable[..., Limiter]]:
    """Make a limiter that counts in this Redis, or in memory."""
    made: list[Limiter] = []

    def make(redis_url: str = "") -> Limiter:
        made.append(Limiter([ORDINARY, LOGIN], tokens, redis_url))
        return made[-1]

    yield make
    for limiter in made:
        run(limiter.__aexit__())


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest, limiting) -> Limiter:
    return limiting(request.getfixturevalue("redis_url") if request.param == "redis" else "")


async def _admitted(limiter: Limiter, policy: Policy, *askings: Asking) -> int:
    count = 0
    for asking in askings:
        try:
            await limiter.admit(policy, asking)
        except TooManyRequests:
            continue
        count += 1
    return count


@pytest.fixture
def admitted(limiter: Limiter, run) -> Callable[..., int]:
    """How many of these are let in."""
    return lambda *askings, policy=ORDINARY: run(_admitted(limiter, policy, *askings))


@pytest.fixture
def sign_in(limiter: Limiter, run) -> Callable[[Asking], None]:
    """Let this one in, with the right password."""

    async def sign_in(asking: Asking) -> None:
        await limiter.admit(LOGIN, asking)
        await limiter.succeeded(LOGIN, asking)

    return lambda asking: run(sign_in(asking))


def test_a_burst_is_let_in_and_no_more(admitted) -> None:
    assert admitted(*[Asking()] * 10) == 3


def test_every_address_has_a_bucket_of_its_own(admitted) -> None:
    assert admitted(*[Asking("192.0.2.1")] * 5, *[Asking("192.0.2.2")] * 5) == 6


def test_the_addresses_of_one_customer_are_one(admitted) -> None:
    assert admitted(*[Asking(f"2001:db8::{n:x}") for n in range(5)]) == 3
    assert admitted(Asking("2001:db8:0:1::1")) == 1


def test_an_ipv4_address_is_the_same_in_ipv6(admitted) -> None:
    assert admitted(*[Asking("::ffff:192.0.2.1"), Asking("192.0.2.1")] * 3) == 3


def test_a_user_has_one_bucket_wherever_they_are(admitted, tokens: Tokens) -> None:
    alice = [Asking(f"192.0.2.{n}", tokens.issue("alice").encode()) for n in range(5)]

    assert admitted(*alice) == 3
    assert admitted(Asking("192.0.2.1", tokens.issue("bob").encode())) == 1


def test_a_bad_token_is_nobodys(admitted) -> None:
    assert admitted(*[Asking(bearer=f"no token {n}".encode()) for n in range(5)]) == 3


def test_who_is_refused_learns_when_to_come_again(limiter: Limiter, run) -> None:
    async def exhaust() -> None:
        for _ in range(4):
            await limiter.admit(ORDINARY, Asking())

    with pytest.raises(TooManyRequests) as refused:
        run(exhaust())

    headers = refused.value.headers
    assert headers["Retry-After"] == "1"
    assert headers["RateLimit-Policy"].startswith('"ordinary";q=3;w=')
    assert headers["RateLimit"].startswith('"ordinary";r=0;t=')


@pytest.mark.parametrize("clients", [1, 1000])
def test_of_a_thousand_guesses_at_an_account_few_are_let_in(admitted, clients: int) -> None:
    guesses = [guess("alice", f"10.0.{n % clients // 250}.{n % clients % 250}") for n in range(1000)]

    assert admitted(*guesses, policy=LOGIN) == 20


def test_an_account_is_one_however_it_is_written(admitted) -> None:
    form = urlencode({"username": "ALICE", "password": "guess"}).encode()
    twice = b'{"username": "bob", "username": "alice"}'
    ways = [
        guess("alice"),
        guess("Alice"),
        Asking(content_type=FORM, held_body=form),
        Asking(held_body=twice),
    ]

    assert admitted(*ways * 10, policy=LOGIN) == 20


def test_what_a_form_holds_is_not_looked_for_in_json(admitted) -> None:
    both = Asking(content_type=FORM, held_body=b'{"a": "&username=alice&"}')

    assert admitted(*[both] * 30, policy=LOGIN) == 20


def test_guesses_from_elsewhere_keep_nobody_out_where_they_have_signed_in(admitted, sign_in) -> None:
    sign_in(guess("alice", "192.0.2.1"))
    admitted(*[guess("alice", "192.0.2.66")] * 100, policy=LOGIN)

    assert admitted(guess("alice", "192.0.2.1"), policy=LOGIN) == 1


def test_who_knows_the_password_is_never_refused(admitted, sign_in) -> None:
    for _ in range(50):
        sign_in(guess("alice"))

    assert admitted(guess("alice"), policy=LOGIN) == 1


def test_guesses_from_where_the_owner_has_signed_in_are_few_as_well(admitted, sign_in) -> None:
    sign_in(guess("alice"))

    assert admitted(*[guess("alice")] * 1000, policy=LOGIN) == 20


def test_a_success_from_elsewhere_gives_guessers_nothing(admitted, sign_in) -> None:
    admitted(*[guess("alice", "192.0.2.66")] * 19, policy=LOGIN)
    sign_in(guess("alice", "192.0.2.1"))

    assert admitted(*[guess("alice", "192.0.2.66")] * 10, policy=LOGIN) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"username": 1}', b"[" * 9000, b"\xff"])
def test_a_body_that_names_no_account_is_still_counted_by_its_address(admitted, body: bytes) -> None:
    assert admitted(Asking(held_body=body), policy=LOGIN) == 1


def test_gateways_that_share_a_redis_count_together(limiting, redis_url: str, run) -> None:
    gateways = [limiting(redis_url) for _ in range(2)]

    assert [run(_admitted(one, ORDINARY, Asking(), Asking())) for one in gateways] == [2, 1]


def test_a_redis_that_is_away_is_done_without(limiting, run, caplog: pytest.LogCaptureFixture) -> None:
    limiter = limiting(f"redis://127.0.0.1:{servers.free_port()}/0")

    assert run(_admitted(limiter, ORDINARY, *[Asking()] * 10)) == 3
    assert len(caplog.records) == 1


def test_a_redis_that_hangs_is_not_waited_for(limiting, run, tmp_path: Path) -> None:
    server = servers.redis(tmp_path / "hung", servers.free_port())
    limiter = limiting(f"redis://127.0.0.1:{server.port}/0")
    server._process.send_signal(signal.SIGSTOP)
    started = time.monotonic()

    assert run(_admitted(limiter, ORDINARY, *[Asking()] * 100)) == 3
    assert time.monotonic() - started < BUSY_SECONDS

    server._process.send_signal(signal.SIGCONT)
    server.stop()
