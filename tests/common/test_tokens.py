"""Tokens that are good, and the many that are not."""

import time
from datetime import timedelta

import pytest
from fastapi import Request
from jose import jwt
from pydantic import TypeAdapter, ValidationError

from common.api.auth import bearer_token
from common.errors import Unauthorized
from common.fields import Username
from common.tokens import Tokens, is_service
from tests.tokens import BAD


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


@pytest.mark.parametrize("name", ["service:likes", "Service:likes", "service\uff1alikes", "service:"])
def test_no_user_can_be_called_like_a_service(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Username).validate_python(name)


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
