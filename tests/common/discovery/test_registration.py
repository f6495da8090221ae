"""Being found, and knowing where the others are."""

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import server_processes
import uvicorn
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from common.discovery import registration as module
from common.discovery.directory import Directory
from common.discovery.models import LEASE_SECONDS, Instance, Snapshot, Status
from common.discovery.registration import Registrations
from tests import plain_http
from tests.common.discovery.conftest import Follow, Registry, Service, Start, ports, register
from tests.instances import instance
from tests.polling import PATIENCE_SECONDS, eventually
from tests.serving import serving


def _table(epoch: str, *instances: Instance) -> Snapshot:
    return Snapshot(epoch=epoch, version=1, services={"users": instances} if instances else {})


def test_a_registry_that_comes_back_empty_makes_no_instance_disappear_for_a_lease() -> None:
    directory = Directory(None)
    directory.update(_table("first", instance(5100)), now=100)
    directory.update(_table("second"), now=200)
    before = ports(directory)
    directory.update(_table("second"), now=200 + LEASE_SECONDS)

    assert (before, ports(directory)) == ([5100], [])


def test_an_instance_that_registers_again_is_there_once() -> None:
    directory = Directory(None)
    directory.update(_table("first", instance(5100), instance(5110)), now=100)
    directory.update(_table("second", instance(5110)), now=200)

    assert ports(directory) == [5100, 5110]


def test_an_instance_whose_address_another_service_has_now_is_not_kept() -> None:
    directory = Directory(None)
    directory.update(_table("old", instance(1)), now=0)
    directory.update(Snapshot(epoch="new", version=1, services={"polls": (instance(1, "polls"),)}), now=1)

    assert directory.instances("users") == ()


def test_within_an_epoch_an_instance_that_is_not_listed_is_gone() -> None:
    directory = Directory(None)
    directory.update(_table("first", instance(5100), instance(5110)), now=100)
    directory.update(_table("first", instance(5110)), now=101)

    assert ports(directory) == [5110]


def test_an_instance_that_left_after_registering_again_has_left() -> None:
    directory = Directory(None)
    directory.update(_table("first", instance(5100), instance(5110)), now=100)
    directory.update(_table("second", instance(5110)), now=200)
    directory.update(_table("second"), now=201)

    assert ports(directory) == [5100]


def test_a_registry_may_restart_twice_in_a_row() -> None:
    directory = Directory(None)
    directory.update(_table("first", instance(5100)), now=100)
    directory.update(_table("second"), now=200)
    directory.update(_table("third"), now=201)

    assert ports(directory) == [5100]


def test_a_directory_learns_of_every_change(url: str, follow: Follow) -> None:
    directory = follow(url)
    instance_id = register(url, 5100)
    eventually(lambda: ports(directory) == [5100])
    plain_http.post(f"{url}/heartbeat/{instance_id}", json={"status": "draining"})
    eventually(lambda: directory.instances("users")[0].status is Status.DRAINING)
    plain_http.delete(f"{url}/deregister/{instance_id}")

    eventually(lambda: ports(directory) == [])


@pytest.mark.kills
def test_a_service_registers_follows_its_health_and_leaves(start: Start, url: str, follow: Follow) -> None:
    directory = follow(url)
    port = server_processes.free_port()
    service = start(
        "users_service.app", port=port, registry_url=url, db_port=server_processes.free_port()
    )  # without its PostgreSQL
    eventually(lambda: [one.status for one in directory.instances("users")] == [Status.DEGRADED])
    service.send_signal(signal.SIGTERM)
    eventually(lambda: [one.status for one in directory.instances("users")] == [Status.DRAINING])
    eventually(lambda: not directory.instances("users"))

    assert service.wait(PATIENCE_SECONDS) == 0


@pytest.mark.kills
def test_when_the_registry_is_gone_its_last_table_stays(registry: Registry, follow: Follow) -> None:
    directory = follow(registry.url)
    register(registry.url, 5100)
    eventually(lambda: ports(directory) == [5100])
    registry.kill()
    eventually(lambda: not directory.is_current)

    assert ports(directory) == [5100]


@pytest.mark.kills
def test_a_directory_finds_a_restarted_registry_and_forgets_no_instance_at_once(
    registry: Registry, follow: Follow
) -> None:
    directory = follow(registry.url)
    register(registry.url, 5100)
    eventually(lambda: ports(directory) == [5100])
    registry.kill()
    eventually(lambda: not directory.is_current)
    registry.start()
    register(registry.url, 5110)

    assert eventually(lambda: len(ports(directory)) > 1 and ports(directory)) == [5100, 5110]


@pytest.mark.kills
def test_a_client_that_waits_for_a_change_does_not_keep_the_registry_from_ending(
    registry: Registry, follow: Follow, tmp_path: Path
) -> None:
    directory = follow(registry.url)
    register(registry.url, 5100)
    eventually(lambda: ports(directory) == [5100])
    registry.process.send_signal(signal.SIGTERM)

    assert registry.process.wait(PATIENCE_SECONDS) == 0
    assert "timeout graceful shutdown exceeded" not in (tmp_path / "registry_service.app.log").read_text()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats that follow each other fast."""
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.1)


def _statuses(url: str) -> list[str]:
    found = plain_http.get(f"{url}/services").json()["services"]
    return [one["status"] for one in found.get("things", [])]


def test_a_service_that_is_not_well_yet_does_not_pass_for_well_even_for_a_moment(url: str) -> None:
    before = plain_http.get(f"{url}/services").json()["version"]
    service = Service(url)
    service.is_healthy = False
    with service:
        assert eventually(lambda: _statuses(url)) == ["degraded"]

        assert plain_http.get(f"{url}/services").json()["version"] == before + 1


@pytest.mark.kills
@pytest.mark.usefixtures("impatient")
def test_after_a_restart_of_the_registry_all_register_again(registry: Registry) -> None:
    with Service(registry.url):
        eventually(lambda: _statuses(registry.url))
        registry.kill()
        registry.start()

        assert eventually(lambda: _statuses(registry.url)) == ["up"]


@pytest.mark.starts
@pytest.mark.usefixtures("impatient")
def test_a_service_may_start_before_the_registry(start: Start) -> None:
    registry = Registry(start)
    with Service(registry.url):
        registry.start()

        assert eventually(lambda: _statuses(registry.url)) == ["up"]


def test_a_change_of_health_does_not_wait_for_the_next_heartbeat(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 3600)
    with Service(url) as service:
        eventually(lambda: _statuses(url) == ["up"])
        service.is_healthy = False

        eventually(lambda: _statuses(url) == ["degraded"])


def test_a_service_that_ends_leaves_at_once(url: str) -> None:
    with Service(url):
        eventually(lambda: _statuses(url))

    assert _statuses(url) == []


def test_processes_that_share_an_address_do_not_replace_each_other(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.02)

    with Service(url, processes=2):
        eventually(lambda: _statuses(url))
        first = _heartbeats(url)
        eventually(lambda: _heartbeats(url) > first + 20)
        before = plain_http.get(f"{url}/services").json()
        eventually(lambda: _heartbeats(url) > first + 40)
        after = plain_http.get(f"{url}/services").json()

    assert len(after["services"]["things"]) == 1
    assert after["version"] == before["version"]


def _heartbeats(url: str) -> float:
    """How many the registry has had."""
    text = plain_http.get(f"{url}/metrics").text
    return sum(map(float, re.findall(r"\nmicroblog_registry_heartbeats_total (.*)", text)))


def test_a_service_that_was_never_registered_does_not_register_to_deregister(url: str) -> None:
    async def is_healthy() -> bool:
        return True

    async def come_and_go() -> None:
        async with Registrations(
            url, "", "things", ("127.0.0.1", server_processes.free_port()), is_healthy
        ) as registration:
            await registration.drain()

    before = plain_http.get(f"{url}/services").json()
    asyncio.run(come_and_go())

    assert plain_http.get(f"{url}/services").json() == before


@pytest.mark.kills
def test_a_service_ends_while_the_registry_hangs(registry: Registry) -> None:
    with Service(registry.url):
        eventually(lambda: _statuses(registry.url))
        registry.process.send_signal(signal.SIGSTOP)

    # For the heartbeat under way, for the last one, and for deregistering.
    assert 3 * module.DEREGISTER_TIMEOUT_SECONDS < 2


@pytest.mark.usefixtures("impatient")
def test_what_is_not_a_registry_is_asked_until_it_is_one(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(start)
    with _something_else(registry.url) as asked, Service(registry.url):
        eventually(lambda: len(asked) > 3)
    complaints = [one.getMessage() for one in caplog.records if one.name == module.logger.name]

    assert len(complaints) == 1
    assert "is not a registry" in complaints[0]


def test_a_service_that_leaves_while_it_is_registered_is_taken_off_the_list(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEREGISTER_TIMEOUT_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(module, "SHUTDOWN_TIMEOUT", PATIENCE_SECONDS)
    is_leaving = Event()

    async def lease(path: str) -> Response:
        while not is_leaving.is_set():
            await asyncio.sleep(0.01)
        return JSONResponse({"instance_id": "id"})

    registry = Registry(start)
    with _something_else(registry.url, lease) as asked, Service(registry.url, is_leaving):
        eventually(lambda: asked)

        # Leaves now, before it has been told its id.
    assert asked == ["/register", "/heartbeat/id", "/heartbeat/id", "/deregister/id"]


@pytest.mark.kills
def test_a_registry_that_is_gone_is_no_trouble_to_a_service_that_leaves(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with Service(registry.url):
        eventually(lambda: _has_beaten(registry.url))
        registry.kill()

    assert [
        one for one in caplog.records if one.name == module.logger.name and one.levelname == "WARNING"
    ] == []


def _has_beaten(url: str) -> bool:
    found = plain_http.get(f"{url}/services").json()["services"].get("things", [])
    return any(one["last_heartbeat"] > one["registered_at"] for one in found)


async def _welcome(path: str) -> Response:
    return PlainTextResponse("Welcome!")


@contextmanager
def _something_else(url: str, reply: Callable[[str], Awaitable[Response]] = _welcome) -> Iterator[list[str]]:
    """A server that is no registry; the paths that it was asked for."""
    asked: list[str] = []

    async def response(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])
        await (await reply(scope["path"]))(scope, receive, send)

    port = int(url.rpartition(":")[2])
    config = uvicorn.Config(response, port=port, loop="asyncio", lifespan="off", log_config=None)
    with serving(uvicorn.Server(config)):
        yield asked
