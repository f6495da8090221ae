"""Watchers, and all others, have the responses that FastAPI's routes have."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from registry_service import shortcut, store
from tests.instances import NOW

ID = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"
USERS = {"service_name": "users", "host": "127.0.0.1", "port": 5100}
JSON = {"Content-Type": "application/json"}
BEAT = f"/heartbeat/{ID}"

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "register": ("POST", "/register", {"json": USERS | {"version": "1.0.0", "status": "degraded"}}),
    "register spelled otherwise": ("POST", "/register", {"json": USERS | {"host": "LOCALHOST"}}),
    "register with too much": ("POST", "/register", {"json": USERS | {"extra": 1}}),
    "register without a body": ("POST", "/register", {}),
    "register as a form": ("POST", "/register", {"data": USERS}),
    "register in pieces": ("POST", "/register", {"content": [b"{", b"}"], "headers": JSON}),
    "register from a page": ("POST", "/register", {"json": USERS, "headers": {"Origin": "http://a.test"}}),
    "beat": ("POST", BEAT, {"json": {"status": "draining"}}),
    "beat without a body": ("POST", BEAT, {}),
    "beat with null": ("POST", BEAT, {"json": None}),
    "beat with an empty body": ("POST", BEAT, {"json": {}}),
    "beat as a suspect": ("POST", BEAT, {"json": {"status": "suspect"}}),
    "beat that is no JSON": ("POST", BEAT, {"content": b"{", "headers": JSON}),
    "beat that is too large": ("POST", BEAT, {"content": b" " * 70_000, "headers": JSON}),
    "beat as text": ("POST", BEAT, {"content": b"{}"}),
    "beat of an unknown one": ("POST", "/heartbeat/unknown", {}),
    "beat of none": ("POST", "/heartbeat/", {}),
    "beat below": ("POST", f"{BEAT}/x", {}),
    "beat with GET": ("GET", BEAT, {}),
    "services": ("GET", "/services", {}),
    "services with HEAD": ("HEAD", "/services", {}),
    "services of an epoch": ("GET", "/services?epoch=old&version=1&wait=1", {}),
    "services twice": ("GET", "/services?version=0&version=1&wait=0&wait=0.01", {}),
    "changes": ("GET", "/services?version=0&wait=1&changes=true", {}),
    "changes, neither yes nor no": ("GET", "/services?version=0&changes=2", {}),
    "services without a number": ("GET", "/services?version=&wait=1", {}),
    "services for too long": ("GET", "/services?wait=31", {}),
    "services and something else": ("GET", "/services?other=%FF", {}),
}


@pytest.fixture
def timeless(app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A registry with an instance, in which the same call twice has the same response."""
    monkeypatch.setattr(store, "new_id", lambda: ID)
    monkeypatch.setattr(app.state.store, "_wall_clock", lambda: NOW)
    client.post("/register", json=USERS)
    return client


def _response(client: TestClient, call: tuple[str, str, dict[str, Any]]) -> tuple[object, ...]:
    method, path, options = call
    response = client.request(method, path, **options)
    headers = {name: value for name, value in response.headers.items() if name != "traceparent"}
    return response.status_code, response.content, headers


@pytest.mark.parametrize("name", CASES)
def test_the_shortcut_is_seen_in_no_response(
    timeless: TestClient, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    timeless.headers["X-Request-ID"] = "one"
    short = _response(timeless, CASES[name])
    monkeypatch.setattr(shortcut, "_is_of_watcher", lambda scope: False)

    assert short == _response(timeless, CASES[name])


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/register", "/register"),
        ("POST", BEAT, "/heartbeat/{instance_id}"),
        ("GET", "/services", "/services"),
    ],
)
def test_what_takes_the_shortcut_is_measured_by_its_route(
    timeless: TestClient, method: str, path: str, route: str
) -> None:
    timeless.request(method, path, json=USERS if path == "/register" else None)
    measured = timeless.get("/metrics", headers={"Host": "localhost"}).text

    assert f'http_request_method="{method}",http_route="{route}"' in measured
