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
from common.revocations import Revocation, RevocationChanges, Revocations
from common.settings import Settings
from common.tokens import Tokens, is_service
from tests.tokens import BAD

OLD, NEW, OTHER = "the old secret", "the new secret", "another secret"


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


def _tokens(secret: str, previous: str | None = None, revocations: Revocations | None = None) -> Tokens:
    settings = Settings(_env_file=None, jwt_secret=secret, jwt_secret_previous=previous)
    return Tokens.from_settings(settings, revocations)


@pytest.mark.parametrize(
    ("issuer", "verifier"),
    [
        (_tokens(OLD), _tokens(OLD, NEW)),
        (_tokens(OLD, NEW), _tokens(OLD)),
        (_tokens(OLD, NEW), _tokens(NEW, OLD)),
        (_tokens(NEW, OLD), _tokens(OLD, NEW)),
        (_tokens(NEW, OLD), _tokens(NEW)),
    ],
    ids=["before, first step", "first step, before", "first, second", "second, first", "second, third"],
)
def test_processes_one_step_apart_in_a_rotation_accept_each_others_tokens(
    issuer: Tokens, verifier: Tokens
) -> None:
    assert verifier.subject(issuer.issue("alice")) == "alice"
    assert verifier.subject(issuer.issue_for_service("likes")) == "service:likes"


def test_the_previous_secret_signs_nothing() -> None:
    with pytest.raises(Unauthorized):
        _tokens(OLD).subject(_tokens(NEW, previous=OLD).issue("alice"))


def test_a_token_of_a_third_secret_is_refused_during_a_rotation() -> None:
    with pytest.raises(Unauthorized):
        _tokens(NEW, previous=OLD).subject(_tokens(OTHER).issue("alice"))


def test_without_a_previous_secret_its_tokens_are_refused() -> None:
    with pytest.raises(Unauthorized):
        _tokens(NEW).subject(_tokens(OLD).issue("alice"))


def test_a_revoked_token_of_the_previous_secret_stays_revoked() -> None:
    revocations = Revocations()
    token = _tokens(OLD).issue("alice", generation=1)
    tokens = _tokens(NEW, OLD, revocations)
    assert tokens.subject(token) == "alice"
    revoked = Revocation(position=1, username="alice", jti=None, generation=2, expires_at=2**33)
    revocations.update(RevocationChanges(position=1, revocations=[revoked]))

    with pytest.raises(Unauthorized):
        tokens.subject(token)
    assert tokens.subject(tokens.issue("alice", generation=2)) == "alice"


def test_a_secret_that_is_json_is_a_secret_like_any_other() -> None:
    tokens = _tokens('{"keys": []}')

    assert tokens.subject(tokens.issue("alice")) == "alice"
