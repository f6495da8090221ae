"""compose.yaml against the Procfile and the settings."""

import re

import pytest
import yaml

from tests.deploy.processes import COMMANDS, ROOT
from tests.settings_classes import VARIABLES

TEXT = (ROOT / "compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
STORES = SERVICES.keys() - COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_process_of_the_procfile_is_a_service(name: str) -> None:
    assert SERVICES[name]["command"] == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_variable_is_a_setting(name: str) -> None:
    ours = {variable for variable in SERVICES[name]["environment"] if not variable.startswith("OTEL_")}

    assert ours <= VARIABLES


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_version(name: str) -> None:
    assert re.search(r":(?!latest)[\w.-]+$", SERVICES[name]["image"])


def test_secrets_are_named_and_not_written() -> None:
    secrets = re.findall(r"(?:PASSWORD|SECRET|TOKEN): (.*)", TEXT)

    assert len(secrets) == 5
    assert all(re.fullmatch(r"\$\{\w+:[?-].*\}", secret) for secret in secrets)
    assert [secret for secret in secrets if ":-" in secret] == ["${STATUS_TOKEN:-}"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_process_says_whether_it_is_healthy_and_what_it_measures(name: str) -> None:
    service = SERVICES[name]

    assert service["healthcheck"]["test"] == ["CMD", "python", "healthcheck.py", "/health"]
    assert service["environment"]["HOST"] == "0.0.0.0"
    assert "STATUS_TOKEN" in service["environment"]


def test_only_the_gateway_has_a_port_on_the_machine_and_only_there() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "gateway": ["127.0.0.1:8080:8080"]
    }


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_be_scaled(name: str) -> None:
    assert SERVICES[name].keys().isdisjoint({"container_name", "hostname", "network_mode"})


@pytest.mark.parametrize("name", COMMANDS)
def test_processes_can_change_nothing_in_their_containers(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_waited_for_says_whether_it_is_healthy(name: str) -> None:
    waited_for = SERVICES[name].get("depends_on", {})

    assert all(SERVICES[needed]["healthcheck"] for needed in waited_for)


@pytest.mark.parametrize("name", sorted(STORES - {"mail"}))
def test_what_a_store_holds_outlives_its_container(name: str) -> None:
    assert any(volume.startswith(f"{name}:") for volume in SERVICES[name]["volumes"])
