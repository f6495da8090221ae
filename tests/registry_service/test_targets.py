"""What the registry tells Prometheus."""

from fastapi import FastAPI
from fastapi.testclient import TestClient


def targets(client: TestClient) -> list[tuple[list[str], str, str]]:
    found = client.get("/prometheus/targets").raise_for_status().json()
    return [(one["targets"], one["labels"]["service"], one["labels"]["instance"]) for one in found]


def register(client: TestClient, name: str, host: str, port: int) -> str:
    body = {"service_name": name, "host": host, "port": port}
    return str(client.post("/register", json=body).raise_for_status().json()["instance_id"])


def test_all_instances_and_the_registry_itself_are_targets(client: TestClient) -> None:
    register(client, "users", "127.0.0.1", 5100)
    register(client, "users", "::1", 5110)
    register(client, "timelines_worker", "worker.example", 5300)

    assert targets(client) == [
        (["worker.example:5300"], "timelines_worker", "worker.example:5300"),
        (["127.0.0.1:5100"], "users", "127.0.0.1:5100"),
        (["[::1]:5110"], "users", "[::1]:5110"),
        (["127.0.0.1:8006"], "registry", "127.0.0.1:8006"),
    ]


def test_an_instance_that_is_gone_is_no_target(client: TestClient) -> None:
    instance = register(client, "users", "127.0.0.1", 5100)
    client.delete(f"/deregister/{instance}")

    assert [service for _, service, _ in targets(client)] == ["registry"]


def test_registered_instances_are_measured_by_service_and_status(client: TestClient, app: FastAPI) -> None:
    register(client, "users", "127.0.0.1", 5100)

    text = client.get("/metrics", headers={"Host": "localhost"}).text

    assert 'microblog_registry_instances{registered_service="users",status="up"} ' in text
