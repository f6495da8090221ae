"""What may be set where the internet comes in, and what it does."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from common.gateway.middleware import edge_middleware
from common.gateway.settings import EdgeSettings


def settings(**given: Any) -> EdgeSettings:
    return EdgeSettings(_env_file=None, registry_url=None, port=1, **given)


@pytest.fixture
def behind() -> Callable[..., TestClient]:
    """A client of an app that tells what it believes of the client."""

    def make(peer: str = "192.0.2.1", **given: Any) -> TestClient:
        app = FastAPI(middleware=list(edge_middleware(settings(**given))))

        @app.get("/")
        async def tell(request: Request) -> JSONResponse:
            return JSONResponse([request.client.host, request.url.scheme, request.headers["host"]])

        return TestClient(app, base_url="http://here", client=(peer, 1))

    return make


FORWARDED = {
    "X-Forwarded-For": "6.6.6.6, 198.51.100.7, 10.0.0.2",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "example.com",
}


def test_nobody_is_believed_unless_trusted(behind) -> None:
    assert behind().get("/", headers=FORWARDED).json() == ["192.0.2.1", "http", "here"]


def test_only_trusted_peers_are_believed(behind) -> None:
    client = behind(peer="192.0.2.1", trusted_proxies="10.0.0.0/8")

    assert client.get("/", headers=FORWARDED).json() == ["192.0.2.1", "http", "here"]


def test_the_client_is_the_last_one_that_is_not_trusted(behind) -> None:
    client = behind(peer="10.0.0.1", trusted_proxies="127.0.0.1, 10.0.0.0/8")

    assert client.get("/", headers=FORWARDED).json() == ["198.51.100.7", "https", "example.com"]


@pytest.mark.parametrize("origin", ["https://example.com", "https://evil.com"])
def test_no_page_may_call_unless_it_is_listed(behind, origin: str) -> None:
    listed = behind(cors_origins="https://example.com,https://example.org")
    response = listed.get("/", headers={"Origin": origin})

    assert response.headers.get("Access-Control-Allow-Origin") == (
        origin if origin.endswith("example.com") else None
    )
    assert "Access-Control-Allow-Credentials" not in response.headers


def test_without_a_list_no_page_may_call(behind) -> None:
    response = behind().get("/", headers={"Origin": "https://example.com"})

    assert "Access-Control-Allow-Origin" not in response.headers


def test_a_listed_page_may_send_a_token_and_a_key(behind) -> None:
    asked = {
        "Origin": "https://example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "Authorization, Content-Type, Idempotency-Key",
    }

    assert behind(cors_origins="https://example.com").options("/", headers=asked).status_code == 200


@pytest.mark.parametrize(
    ("origin", "method"), [("https://evil.com", "GET"), ("https://example.com", "TRACE")]
)
def test_a_page_that_may_not_is_told_so(behind, origin: str, method: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    response = behind(cors_origins="https://example.com").options("/", headers=asked)

    assert (response.status_code, response.json()["code"]) == (400, "cors_refused")
    assert response.headers["Vary"] == "Origin"


def test_an_empty_limit_is_the_default_one() -> None:
    assert settings(rate_limit="").default_policy == settings().default_policy


@pytest.mark.parametrize(
    "given",
    [
        {"rate_limit": "many"},
        {"rate_limit": "0/s"},
        {"rate_limit": "10/s burst 0"},
        {"rate_limit": "10/s, 100/min"},
        {"rate_limit_storage": "memcached://localhost"},
        {"trusted_proxies": "localhost"},
        {"trusted_proxies": "10.0.0.1/8"},
        {"cors_origins": "example.com"},
        {"cors_origins": "https://example.com/"},
        {"cors_origins": "null"},
    ],
)
def test_junk_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        settings(**given)


@pytest.mark.parametrize(
    ("value", "burst"), [("10/s", 10), ("10/s burst 50", 50), ("600/min burst 20", 20), ("5/hour", 5)]
)
def test_a_limit_is_a_rate_and_a_burst(value: str, burst: int) -> None:
    policy = settings(rate_limit=value).default_policy

    assert policy
    assert policy.quota.burst == burst


def test_the_limits_can_be_turned_off() -> None:
    assert settings(rate_limit="off").default_policy is None
