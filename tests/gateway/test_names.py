"""Instances that are registered by name: where the name leads, and when it leads elsewhere."""

import pytest
from fastapi.testclient import TestClient

from common.gateway import transport
from tests.instances import instance

NAME = "timelines.test"


@pytest.mark.parametrize(
    "before", [["127.0.0.2"], ["::1"], ["127.0.0.2", "::1"]], ids=["refuses", "IPv6", "both"]
)
def test_an_address_that_refuses_does_not_matter_beside_another(
    client: TestClient, start, listed, addresses: dict[str, list[str]], before: list[str]
) -> None:
    addresses[NAME] = [*before, "127.0.0.1"]
    listed(instance(start("timelines").server_port, "timelines", host=NAME))

    assert client.get("/posts").status_code == 200


def test_an_address_that_is_silent_does_not_matter_beside_another(
    client: TestClient, start, listed, addresses: dict[str, list[str]], silent: tuple[str, int]
) -> None:
    host, port = silent
    addresses[NAME] = [host, "127.0.0.1"]
    start("timelines", port=port)
    listed(instance(port, "timelines", host=NAME))

    assert client.get("/posts").status_code == 200


@pytest.fixture
def resolved_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "NAME_SECONDS", 0)


def test_a_name_that_leads_elsewhere_is_followed(
    resolved_each_time, client: TestClient, start, listed, addresses: dict[str, list[str]]
) -> None:
    old = start("timelines")
    old.behaviour = lambda answer: answer.reply(headers=(("Connection", "close"),))
    new = start("timelines", "127.0.0.2", old.server_port)
    listed(instance(old.server_port, "timelines", host=NAME))
    for address in ("127.0.0.1", "127.0.0.2"):
        addresses[NAME] = [address]
        client.get("/posts")

    assert (len(old.requests), len(new.requests)) == (1, 1)


def test_a_name_is_resolved_again_within_the_seconds_in_which_the_suite_heals() -> None:
    assert transport.NAME_SECONDS < 5


def test_a_name_that_does_not_resolve_is_503(
    client: TestClient, listed, addresses: dict[str, list[str]]
) -> None:
    addresses[NAME] = []
    listed(instance(1, "timelines", host=NAME))

    assert client.get("/posts").status_code == 503


def test_a_name_that_does_not_resolve_does_not_matter_beside_another(
    client: TestClient, start, listed, addresses: dict[str, list[str]]
) -> None:
    addresses[NAME] = []
    listed(instance(1, "timelines", host=NAME), start("timelines").as_instance())

    assert {client.get("/posts").status_code for _ in range(8)} == {200}
