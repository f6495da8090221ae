"""How often a password may be guessed at, counted in memory and in a real Redis."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from starlette.types import Message
from throttled.rate_limiter import per_hour, per_min

from common.errors import TooManyRequests
from common.gateway.login_limits import LoginLimiter
from common.gateway.rate_limits import Caller, Policy, SharedRedis
from common.gateway.routes import Route

LOGIN = Policy("login", per_min(60_000, burst=60_000), by_address=True)
ATTEMPTS = per_hour(30, burst=20)
JSON, FORM = b"application/json", b"application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Request:
    """What the limiter reads of a forwarded request."""

    address: str = "192.0.2.1"
    content_type: bytes = JSON
    body: bytes = b""
    route: Route = field(default=Route("users", LOGIN, is_sign_in=True))

    @property
    def caller(self) -> Caller:
        return Caller(self.address)


def attempt(account: str, address: str = "192.0.2.1") -> Request:
    body = {"username": account, "password": "guess"}
    return Request(address, body=json.dumps(body).encode())


async def _ignore(message: Message) -> None:
    """Send a response nowhere."""


@pytest.fixture(params=["memory", "redis"])
def limiter(request: pytest.FixtureRequest, run) -> Iterator[LoginLimiter]:
    if request.param == "memory":
        yield LoginLimiter(LOGIN, ATTEMPTS)
        return
    shared = SharedRedis(request.getfixturevalue("redis_url"))
    yield LoginLimiter(LOGIN, ATTEMPTS, shared)
    run(shared.close())


@pytest.fixture
def admitted(limiter: LoginLimiter, run) -> Callable[..., int]:
    """How many of these are let in."""

    async def count(*requests: Request) -> int:
        admitted = 0
        for request in requests:
            try:
                await limiter.guard(request, _ignore)
            except TooManyRequests:
                continue
            admitted += 1
        return admitted

    return lambda *requests: run(count(*requests))


@pytest.fixture
def respond(limiter: LoginLimiter, run) -> Callable[[Request, int], None]:
    """Let this one in, and respond with this status."""

    async def respond(request: Request, status: int) -> None:
        send = await limiter.guard(request, _ignore)
        await send({"type": "http.response.start", "status": status})

    return lambda request, status: run(respond(request, status))


@pytest.fixture
def sign_in(respond) -> Callable[[Request], None]:
    """Let this one in, with the right password."""
    return lambda request: respond(request, 200)


@pytest.mark.parametrize("clients", [1, 1000])
def test_of_a_thousand_guesses_at_an_account_few_are_let_in(admitted, clients: int) -> None:
    attempts = [attempt("alice", f"10.0.{n % clients // 250}.{n % clients % 250}") for n in range(1000)]

    assert admitted(*attempts) == 20


def test_an_account_is_one_however_it_is_written(admitted) -> None:
    form = urlencode({"username": "ALICE", "password": "guess"}).encode()
    twice = b'{"username": "bob", "username": "alice"}'
    ways = [
        attempt("alice"),
        attempt("Alice"),
        Request(content_type=FORM, body=form),
        Request(body=twice),
    ]

    assert admitted(*ways * 10) == 20


def test_what_a_form_holds_is_not_looked_for_in_json(admitted) -> None:
    both = Request(content_type=FORM, body=b'{"a": "&username=alice&"}')

    assert admitted(*[both] * 30) == 20


def test_guesses_from_elsewhere_keep_no_user_out_where_they_have_signed_in(admitted, sign_in) -> None:
    sign_in(attempt("alice", "192.0.2.1"))
    admitted(*[attempt("alice", "192.0.2.66")] * 100)

    assert admitted(attempt("alice", "192.0.2.1")) == 1


def test_a_user_who_knows_the_password_is_never_refused(admitted, sign_in) -> None:
    for _ in range(50):
        sign_in(attempt("alice"))

    assert admitted(attempt("alice")) == 1


def test_guesses_from_where_the_owner_has_signed_in_are_few_as_well(admitted, sign_in) -> None:
    sign_in(attempt("alice"))

    assert admitted(*[attempt("alice")] * 1000) == 20


def test_a_success_from_elsewhere_gives_guessers_nothing(admitted, sign_in) -> None:
    admitted(*[attempt("alice", "192.0.2.66")] * 19)
    sign_in(attempt("alice", "192.0.2.1"))

    assert admitted(*[attempt("alice", "192.0.2.66")] * 10) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"username": 1}', b"[" * 9000, b"\xff"])
def test_a_body_that_names_no_account_is_no_attempt_at_one(admitted, body: bytes) -> None:
    assert admitted(Request(body=body)) == 1


def test_a_wrong_password_makes_no_address_known(admitted, respond) -> None:
    respond(attempt("alice"), 401)

    assert admitted(*[attempt("alice")] * 15, *[attempt("alice", "192.0.2.66")] * 15) == 19


def test_a_registration_is_no_attempt(admitted) -> None:
    registration = Request(body=b'{"username": "alice"}', route=Route("users", is_sign_in=True))

    assert admitted(*[registration] * 30) == 30
