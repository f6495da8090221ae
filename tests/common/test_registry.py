"""Being found, and knowing where the others are."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import servers

from common.registry import LEASE_SECONDS, Directory, Instance, Status, Table
from tests.instances import instance
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


def _table(epoch: str, *instances: Instance) -> Table:
    return Table(epoch=epoch, version=1, services={"users": instances} if instances else {})


def _ports(directory: Directory) -> list[int]:
    return sorted(instance.port for instance in directory.instances("users"))


def test_a_registry_that_comes_back_empty_makes_nobody_disappear_for_a_lease() -> None:
    directory = Directory(None)
    directory.accept(_table("first", instance(5100)), now=100)
    directory.accept(_table("second"), now=200)
    before = _ports(directory)
    directory.accept(_table("second"), now=200 + LEASE_SECONDS)

    assert (before, _ports(directory)) == ([5100], [])


def test_who_registers_again_is_there_once() -> None:
    directory = Directory(None)
    directory.accept(_table("first", instance(5100), instance(5110)), now=100)
    directory.accept(_table("second", instance(5110)), now=200)

    assert _ports(directory) == [5100, 5110]


def test_within_an_epoch_who_is_not_listed_is_gone() -> None:
    directory = Directory(None)
    directory.accept(_table("first", instance(5100), instance(5110)), now=100)
    directory.accept(_table("first", instance(5110)), now=101)

    assert _ports(directory) == [5110]


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    """Start a process of the project with these variables."""
    processes = []

    def start(module: str, **variables: Any) -> "subprocess.Popen[bytes]":
        environment = os.environ | {name.upper(): str(value) for name, value in variables.items()}
        command = [sys.executable, "-m", module]
        with (data / f"{module}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def url(start: Start) -> str:
    """A running registry."""
    port = servers.free_port()
    start("registry_service.app", port=port)
    url = f"http://127.0.0.1:{port}"
    eventually(lambda: _is_live(url))
    return url


def _is_live(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/livez").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def directory(url: str) -> Iterator[Directory]:
    directory = Directory(url)
    directory.start()
    eventually(lambda: directory.is_current)
    yield directory
    directory.stop()


def _register(url: str, port: int) -> str:
    body = {"service_name": "users", "host": "127.0.0.1", "port": port}
    instance_id: str = httpx2.post(f"{url}/register", json=body).json()["instance_id"]
    return instance_id


def test_a_directory_learns_of_every_change(url: str, directory: Directory) -> None:
    instance_id = _register(url, 5100)
    eventually(lambda: _ports(directory) == [5100])
    httpx2.post(f"{url}/heartbeat/{instance_id}", json={"status": "draining"})
    eventually(lambda: directory.instances("users")[0].status is Status.DRAINING)
    httpx2.delete(f"{url}/deregister/{instance_id}")

    eventually(lambda: _ports(directory) == [])


def test_a_service_registers_follows_its_health_and_leaves(
    start: Start, url: str, directory: Directory
) -> None:
    port = servers.free_port()
    service = start(
        "users_service.app", port=port, registry_url=url, db_port=servers.free_port()
    )  # without its PostgreSQL
    eventually(lambda: [one.status for one in directory.instances("users")] == [Status.DEGRADED], seconds=20)
    service.send_signal(signal.SIGTERM)
    eventually(lambda: not directory.instances("users"))

    assert service.wait(timeout=5) == 0


def test_after_a_restart_of_the_registry_all_register_again(start: Start) -> None:
    port, service_port = servers.free_port(), servers.free_port()
    url = f"http://127.0.0.1:{port}"
    registry = start("registry_service.app", port=port)
    start("polls_service.app", port=service_port, registry_url=url, dynamodb_url=f"http://127.0.0.1:{port}")
    eventually(lambda: _is_listed(url), seconds=20)
    registry.kill()
    registry.wait()
    start("registry_service.app", port=port)

    eventually(lambda: _is_listed(url), seconds=15)


def _is_listed(url: str) -> bool:
    return _is_live(url) and httpx2.get(f"{url}/services/polls").status_code == 200


def test_when_the_registry_is_gone_its_last_table_stays(start: Start) -> None:
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    registry = start("registry_service.app", port=port)
    eventually(lambda: _is_live(url))
    _register(url, 5100)
    directory = Directory(url)
    directory.start()
    eventually(lambda: _ports(directory) == [5100])
    registry.kill()
    eventually(lambda: not directory.is_current)
    directory.stop()

    assert _ports(directory) == [5100]
