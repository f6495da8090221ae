"""What the registry answers."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from registry_service import change_log, store
from registry_service.app import create_app
from registry_service.settings import RegistrySettings
from tests.clock import Clock
from tests.polling import eventually

USERS = {"service_name": "users", "host": "127.0.0.1", "port": 5100}
# So long a client may wait for a change; a response that comes in half of it has not waited for that.
WAIT_SECONDS = 30


def _register(client: TestClient, **change: Any) -> str:
    instance_id: str = client.post("/register", json=USERS | change).json()["instance_id"]
    return instance_id


def test_registering_gives_a_lease(client: TestClient) -> None:
    answer = client.post("/register", json=USERS | {"version": "1.0.0"})
    lease = answer.json()

    assert answer.status_code == 201
    assert lease.pop("instance_id")
    assert lease == {"lease_seconds": 15, "heartbeat_seconds": 5}


def test_an_instance_is_listed_as_it_was_registered(client: TestClient) -> None:
    instance_id = _register(client, version="1.0.0")
    [instance] = client.get("/services/users").json()

    assert instance.pop("registered_at").endswith("Z")
    assert instance.pop("last_heartbeat").endswith("Z")
    assert instance == USERS | {"instance_id": instance_id, "version": "1.0.0", "status": "up"}


def test_who_is_not_well_yet_may_say_so_from_the_beginning(client: TestClient) -> None:
    _register(client, status="degraded")

    assert [one["status"] for one in client.get("/services/users").json()] == ["degraded"]


@pytest.mark.parametrize("status", ["up", "degraded", "draining"])
def test_a_heartbeat_says_how_the_instance_is(client: TestClient, status: str) -> None:
    beaten = client.post(f"/heartbeat/{_register(client)}", json={"status": status})

    assert beaten.status_code == 200
    assert client.get("/services/users").json()[0]["status"] == status


def test_a_heartbeat_needs_no_body(client: TestClient) -> None:
    assert client.post(f"/heartbeat/{_register(client)}").status_code == 200


def test_an_instance_cannot_call_itself_suspect(client: TestClient) -> None:
    assert client.post(f"/heartbeat/{_register(client)}", json={"status": "suspect"}).status_code == 422


def test_an_unknown_instance_is_404(client: TestClient) -> None:
    assert client.post("/heartbeat/unknown").status_code == 404
    assert client.delete("/deregister/unknown").status_code == 404


def test_a_deregistered_instance_is_gone(client: TestClient) -> None:
    gone = client.delete(f"/deregister/{_register(client)}")

    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("/services/users").json() == []


@pytest.mark.parametrize("name", ["likes", "no_such", "Nope", "x" * 100, "%00"])
def test_a_service_that_was_never_seen_is_404(client: TestClient, name: str) -> None:
    assert client.get(f"/services/{name}").status_code == 404


@pytest.mark.parametrize(
    "change",
    [
        {"service_name": "../x"},
        {"service_name": "x" * 64},
        {"host": "0.0.0.0"},
        {"host": "169.254.169.254"},
        {"host": "fe80::1"},
        {"host": "fe80::1%eth0"},
        {"host": "::1%lo"},
        {"host": "::"},
        {"host": "::ffff:169.254.1.1"},
        {"host": "::ffff:a9fe:101"},
        {"host": "0:0:0:0:0:ffff:0.0.0.0"},
        {"host": "::169.254.1.1"},
        {"host": "64:ff9b::169.254.1.1"},
        {"host": "2002:a9fe:101::1"},
        {"host": "0.1.2.3"},
        {"host": "240.0.0.1"},
        {"host": "2130706433"},
        {"host": "0x7f000001"},
        {"host": "0177.1"},
        {"host": "127.1"},
        {"host": "1.2.3.4.5"},
        {"host": "127.0.0.1."},
        {"host": "169.254.169.254.0x0"},
        {"host": "\uff11\uff12\uff17.0.0.1"},
        {"host": "http://example.com"},
        {"host": "example.com?x"},
        {"host": "example.com#x"},
        {"host": "example.com\\x"},
        {"host": "%31%32%37.0.0.1"},
        {"host": "[::1]"},
        {"host": "ff02::1"},
        {"host": "2852039166"},
        {"host": "0251.0376.0251.0376"},
        {"host": "169.254.43518"},
        {"host": "0"},
        {"host": "127.0.0.1:80"},
        {"host": "a b"},
        {"host": "example.com\n"},
        {"host": "-x.example"},
        {"host": "x" * 254},
        {"host": "caf\u00e9"},
        {"host": "224.0.0.1"},
        {"host": "255.255.255.255"},
        {"host": "user@example.com"},
        {"host": "example.com/path"},
        {"host": "0x7f.1"},
        {"host": ""},
        {"port": 0},
        {"port": 65536},
        {"port": "5100"},
        {"version": "x" * 65},
        {"extra": 1},
    ],
)
def test_a_malformed_instance_is_422(client: TestClient, change: dict[str, Any]) -> None:
    assert client.post("/register", json=USERS | change).status_code == 422


@pytest.mark.parametrize(
    "host", ["localhost", "::1", "10.0.0.7", "users.internal", "stack_users-1", "7eleven"]
)
def test_a_host_may_be_a_name_or_an_address(client: TestClient, host: str) -> None:
    assert client.post("/register", json=USERS | {"host": host}).status_code == 201


def test_one_place_may_be_spelled_in_several_ways(client: TestClient) -> None:
    for host in ("::1", "0:0:0:0:0:0:0:1", "127.0.0.1", "::ffff:127.0.0.1"):
        _register(client, host=host)

    assert [one["host"] for one in client.get("/services/users").json()] == ["::1", "127.0.0.1"]


@pytest.mark.parametrize("path", ["/register", "/heartbeat/x"])
@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"status": "\xff"}', "application/json", 422),
        (b"{}", "text/plain", 415),
        (b"x" * 70_000, "application/json", 413),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(
    client: TestClient, path: str, content: bytes, kind: str, status: int
) -> None:
    assert client.post(path, content=content, headers={"Content-Type": kind}).status_code == status


def test_too_many_instances_are_409(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_INSTANCES", 2)
    statuses = [client.post("/register", json=USERS | {"port": port}).status_code for port in range(1, 4)]

    assert statuses == [201, 201, 409]


def test_the_table_has_its_epoch_and_version(client: TestClient) -> None:
    _register(client)
    snapshot = client.get("/services").json()

    assert set(snapshot) == {"epoch", "version", "services"}
    assert [instance["port"] for instance in snapshot["services"]["users"]] == [5100]


def test_a_client_that_waits_learns_of_a_change_at_once(client: TestClient) -> None:
    snapshot = client.get("/services").json()
    position = {"epoch": snapshot["epoch"], "version": snapshot["version"], "wait": WAIT_SECONDS}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/services", params=position)
        _register(client)

        assert "users" in waiting.result(WAIT_SECONDS / 2).json()["services"]


def test_many_clients_may_wait_and_all_learn_the_same(client: TestClient) -> None:
    snapshot = client.get("/services").json()
    position = {"epoch": snapshot["epoch"], "version": snapshot["version"], "wait": WAIT_SECONDS}
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(client.get, "/services", params=position) for _ in range(20)]
        _register(client)
        answers = {one.result(WAIT_SECONDS / 2).text for one in waiting}

    assert len(answers) == 1


def test_a_client_that_waits_learns_of_a_lease_that_runs_out(client: TestClient, clock: Clock) -> None:
    _register(client)
    snapshot = client.get("/services").json()
    position = {"epoch": snapshot["epoch"], "version": snapshot["version"], "wait": WAIT_SECONDS}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/services", params=position)
        while not waiting.done():
            clock.passes(1)
            client.get("/services/users")

        assert waiting.result().json()["services"] == {}


def test_a_client_may_ask_for_what_has_changed(client: TestClient) -> None:
    kept, gone = _register(client), _register(client, port=5110)
    before = client.get("/services").json()
    client.post(f"/heartbeat/{kept}", json={"status": "draining"})
    client.delete(f"/deregister/{gone}")
    new = _register(client, port=5120)
    position = {"epoch": before["epoch"], "version": before["version"]}
    news = client.get("/services", params=position | {"changes": True}).json()

    assert {key: news[key] for key in ("epoch", "since", "version", "removed")} == {
        "epoch": before["epoch"],
        "since": before["version"],
        "version": before["version"] + 3,
        "removed": [gone],
    }
    assert news["changed"] == client.get("/services").json()["services"]["users"]
    assert [one["instance_id"] for one in news["changed"]] == [kept, new]


def test_a_client_that_waits_for_changes_in_vain_learns_that_there_are_none(client: TestClient) -> None:
    _register(client)
    before = client.get("/services").json()
    position = {"epoch": before["epoch"], "version": before["version"], "wait": 0.01, "changes": True}
    news = client.get("/services", params=position).json()

    assert (news["version"], news["changed"], news["removed"]) == (before["version"], [], [])


@pytest.mark.parametrize("position", [{}, {"epoch": "another", "version": 1}, {"epoch": "another"}])
def test_a_client_that_has_nothing_to_change_gets_everything(
    client: TestClient, position: dict[str, Any]
) -> None:
    _register(client)

    assert client.get("/services", params=position | {"changes": True}).json()["services"]["users"]


def test_a_client_that_lacks_too_much_gets_everything(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_log, "MAX_CHANGES", 1)
    for port in (5100, 5110):
        _register(client, port=port)

    assert len(client.get("/services?version=0&changes=true").json()["services"]["users"]) == 2


def test_a_client_that_waits_in_vain_is_answered_at_last(client: TestClient) -> None:
    snapshot = client.get("/services").json()
    position = {"epoch": snapshot["epoch"], "version": snapshot["version"], "wait": 0.05}

    assert client.get("/services", params=position).json() == snapshot


@pytest.mark.parametrize("position", [{"epoch": "another", "version": 10**9}, {"version": 0}])
def test_a_client_with_another_or_an_older_table_is_answered_at_once(
    client: TestClient, position: dict[str, Any]
) -> None:
    _register(client)

    assert client.get("/services", params=position | {"wait": WAIT_SECONDS}).json()["services"]


@pytest.mark.parametrize("query", ["wait=31", "wait=-1", "wait=nan", "version=-1"])
def test_a_malformed_wait_is_422(client: TestClient, query: str) -> None:
    assert client.get(f"/services?{query}").status_code == 422


def test_a_registry_that_ends_lets_no_client_wait(app: FastAPI, client: TestClient) -> None:
    app.state.watchers.stop()
    snapshot = client.get("/services").json()
    position = {"epoch": snapshot["epoch"], "version": snapshot["version"], "wait": WAIT_SECONDS}

    assert client.get("/services", params=position).status_code == 503


def test_a_client_that_waits_is_let_go_by_a_registry_that_ends(app: FastAPI, client: TestClient) -> None:
    snapshot = client.get("/services").json()
    position = {"epoch": snapshot["epoch"], "version": snapshot["version"], "wait": WAIT_SECONDS}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.get, "/services", params=position)
        eventually(lambda: app.state.watchers._waiting)
        assert client.portal
        client.portal.call(app.state.watchers.stop)

        assert waiting.result(WAIT_SECONDS / 2).headers["Retry-After"] == "2"


def test_status_counts_the_instances(client: TestClient) -> None:
    _register(client)
    client.post(f"/heartbeat/{_register(client, port=5110)}", json={"status": "draining"})
    status = client.get("/status").json()

    assert {key: status["services"]["users"][key] for key in ("instances", "up")} == {"instances": 2, "up": 1}
    assert status["self_preservation"] is None


def test_it_says_what_it_is_and_that_it_is_well(client: TestClient) -> None:
    assert client.get("/").json()["docs"] == "/docs"
    assert client.get("/health").json()["status"] == "ok"


@pytest.fixture
def guarded() -> Iterator[TestClient]:
    """A registry with a token."""
    with TestClient(create_app(RegistrySettings(_env_file=None, registry_token="secret"))) as client:
        yield client


WRITING = [("POST", "/register"), ("POST", "/heartbeat/x"), ("DELETE", "/deregister/x")]


@pytest.mark.parametrize(("method", "path"), WRITING)
@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer other"}, {"Authorization": "Basic secret"}])
def test_writing_without_the_registrys_token_is_401(
    guarded: TestClient, method: str, path: str, header: dict[str, str]
) -> None:
    answer = guarded.request(method, path, content=b"{", headers=header)

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_with_the_registrys_token_one_may_write(guarded: TestClient) -> None:
    headers = {"Authorization": "Bearer secret"}

    assert guarded.post("/register", json=USERS, headers=headers).status_code == 201


def _statuses_of_tokens(settings: RegistrySettings) -> dict[str, int]:
    with TestClient(create_app(settings)) as client:
        return {
            token: client.post(
                "/register", json=USERS, headers={"Authorization": f"Bearer {token}"}
            ).status_code
            for token in ("new", "old", "other")
        }


def test_while_its_token_is_replaced_the_registry_accepts_both() -> None:
    settings = RegistrySettings(_env_file=None, registry_token="new", registry_token_previous="old")

    assert _statuses_of_tokens(settings) == {"new": 201, "old": 201, "other": 401}


def test_once_its_token_is_replaced_the_registry_rejects_the_old_one() -> None:
    settings = RegistrySettings(_env_file=None, registry_token="new")

    assert _statuses_of_tokens(settings) == {"new": 201, "old": 401, "other": 401}


def test_a_user_s_token_is_not_the_registrys(
    guarded: TestClient, as_user: Callable[[str], dict[str, str]]
) -> None:
    assert guarded.post("/register", json=USERS, headers=as_user("alice")).status_code == 401


@pytest.mark.parametrize(("method", "path"), WRITING)
@pytest.mark.parametrize("peer", ["10.0.0.7", "2001:db8::1", "::ffff:10.0.0.7"])
def test_a_registry_without_a_token_takes_nothing_from_other_machines(
    app: FastAPI, peer: str, method: str, path: str
) -> None:
    answer = TestClient(app, client=(peer, 50000)).request(method, path, json=USERS)

    assert (answer.status_code, answer.json()["code"]) == (401, "token_required")


@pytest.mark.parametrize(("method", "path"), WRITING)
@pytest.mark.parametrize("origin", ["http://evil.example:8006", "http://localhost.evil.example", "null", "["])
def test_a_registry_without_a_token_takes_nothing_from_foreign_pages(
    client: TestClient, origin: str, method: str, path: str
) -> None:
    assert client.request(method, path, json=USERS, headers={"Origin": origin}).status_code == 401


@pytest.mark.parametrize("origin", ["http://localhost:8006", "http://127.0.0.1:8006", "http://[::1]:8006"])
def test_a_registry_without_a_token_may_be_tried_in_swagger(client: TestClient, origin: str) -> None:
    assert client.post("/register", json=USERS, headers={"Origin": origin}).status_code == 201


def test_a_registry_without_a_token_looks_at_none(client: TestClient) -> None:
    assert client.post("/register", json=USERS, headers={"Authorization": "Basic x"}).status_code == 201


def test_the_token_is_in_the_api_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    secured = {
        path for path, item in document["paths"].items() for call in item.values() if "security" in call
    }

    assert set(document["components"]["securitySchemes"]) == {"registry_token"}
    assert secured == {"/register", "/heartbeat/{instance_id}", "/deregister/{instance_id}"}


def test_reading_needs_no_token(guarded: TestClient) -> None:
    assert guarded.get("/services").status_code == 200
