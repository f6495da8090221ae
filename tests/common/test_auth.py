"""Tokens that are good, and the many that are not."""

import base64
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Request
from jose import jws, jwt

from common.auth import Tokens, is_service
from common.bearer import bearer_token
from common.errors import Unauthorized

SECRET = "a secret of tests"


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(SECRET, "HS256", timedelta(minutes=5))


def _signed(secret: str = SECRET, algorithm: str = "HS256", **change: Any) -> str:
    now = int(time.time())
    claims = {"sub": "alice", "iat": now, "exp": now + 60, "jti": "1"} | change
    return jwt.encode({k: v for k, v in claims.items() if v is not None}, secret, algorithm)


def _unsigned(header: dict[str, Any]) -> str:
    payload = {"sub": "alice", "iat": 0, "exp": 2**33, "jti": "1"}
    return ".".join(_segment(json.dumps(part).encode()) for part in (header, payload)) + "."


def _segment(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def _signed_text(payload: str) -> str:
    return jws.sign(payload.encode(), SECRET, algorithm="HS256")


def test_a_token_says_who_it_was_issued_to(tokens: Tokens) -> None:
    assert tokens.subject(tokens.issue("alice")) == "alice"


def test_a_token_has_its_claims(tokens: Tokens) -> None:
    claims = jwt.get_unverified_claims(tokens.issue("alice"))

    assert set(claims) == {"sub", "iat", "exp", "jti"}
    assert claims["exp"] - claims["iat"] == 300


def test_a_name_in_a_token_is_lower_case(tokens: Tokens) -> None:
    assert tokens.subject(tokens.issue("Alice")) == "alice"


def test_no_token_is_like_another(tokens: Tokens) -> None:
    assert tokens.issue("alice") != tokens.issue("alice")


def test_a_services_token_is_known_as_one(tokens: Tokens) -> None:
    assert is_service(tokens.subject(tokens.issue_for_service("likes")))
    assert not is_service("alice")


def test_services_ask_under_one_token_for_a_while(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 600.0)
    first = tokens.issue_for_service("likes")

    assert tokens.issue_for_service("likes") == first
    monkeypatch.setattr(time, "time", lambda: 660.0)
    assert tokens.issue_for_service("likes") != first


def test_a_token_that_was_good_is_not_when_it_has_expired(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tokens.issue("alice")
    tokens.subject(token)
    later = time.time() + 301
    monkeypatch.setattr(time, "time", lambda: later)

    with pytest.raises(Unauthorized):
        tokens.subject(token)


BAD = {
    "nothing": "",
    "no token": "x",
    "two parts": "a.b",
    "four parts": "a.b.c.d",
    "another secret": _signed(secret="another secret"),
    "another algorithm": _signed(algorithm="HS512"),
    "alg none": _unsigned({"alg": "none", "typ": "JWT"}),
    "alg None": _unsigned({"alg": "None"}),
    "no alg": _unsigned({"typ": "JWT"}),
    "alg of public keys": _unsigned({"alg": "RS256"}),
    "a key of its own": _unsigned({"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}}),
    "expired": _signed(exp=1),
    "no exp": _signed(exp=None),
    "no sub": _signed(sub=None),
    "no iat": _signed(iat=None),
    "no jti": _signed(jti=None),
    "exp of another type": _signed(exp="soon"),
    "not yet": _signed(nbf=2**33),
    "no signature": _signed().rpartition(".")[0] + ".",
    "another payload": ".".join(
        [_signed().split(".")[0], _signed(sub="bobby").split(".")[1], _signed().split(".")[2]]
    ),
    "long": "x" * 100_000,
    "a header of many brackets": _segment(b"[" * 10_000) + ".e30.AAAA",
    "a header of many braces": _segment(b'{"a":' * 10_000) + ".e30.AAAA",
    "a header of many digits": _segment(b"1" * 10_000) + ".e30.AAAA",
    "a header that is no object": _segment(b"[]") + ".e30.AAAA",
    "a header that is no UTF-8": _segment(b"\xff") + ".e30.AAAA",
    "many brackets, signed": _signed_text("[" * 10_000),
    "no object, signed": _signed_text("[]"),
    "a list of algorithms": _unsigned({"alg": ["HS256"]}),
    "sub of another type": _signed_text('{"sub": 1, "iat": 1, "exp": 9999999999, "jti": "1"}'),
    "a reserved name": _signed(sub="admin"),
    "no name at all": _signed(sub="a b"),
    "not ASCII": "tökén",
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
def test_any_other_token_is_refused(tokens: Tokens, token: str) -> None:
    with pytest.raises(Unauthorized):
        tokens.subject(token)


def _request(*headers: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "headers": headers})


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
def test_the_scheme_is_written_in_any_case(scheme: bytes) -> None:
    assert bearer_token(_request((b"authorization", scheme + b" abc "))) == "abc"


def test_without_the_header_there_is_no_token() -> None:
    assert bearer_token(_request()) is None


@pytest.mark.parametrize("value", [b"", b"abc", b"Basic YTpi", b"Bearer:abc"])
def test_another_scheme_is_refused(value: bytes) -> None:
    with pytest.raises(Unauthorized):
        bearer_token(_request((b"authorization", value)))


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="empty secret"):
        Tokens("", "HS256", timedelta(minutes=5))
