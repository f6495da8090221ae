"""compose.observability.yaml against compose.yaml, and what it mounts against deploy/observability."""

import re
from pathlib import PurePosixPath

import pytest
import yaml

from tests.deploy.processes import ROOT

TEXT = (ROOT / "compose.observability.yaml").read_text()
OVERLAY = yaml.safe_load(TEXT)
SUITE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
ADDED = {name: service for name, service in OVERLAY["services"].items() if name not in SUITE}
PROMETHEUS = yaml.safe_load((ROOT / "deploy/observability/prometheus-compose.yml").read_text())
GRAFANA = ROOT / "deploy/observability/grafana"


def _mounted(service: str) -> dict[str, str]:
    """Paths in a container, and what of the repository is there."""
    files = [volume.split(":") for volume in ADDED[service]["volumes"] if volume.startswith(".")]
    assert {options for _, _, options in files} == {"ro"}
    return {target: source for source, target, _ in files}


@pytest.mark.parametrize("name", ADDED)
def test_everything_that_is_mounted_is_there(name: str) -> None:
    assert [path for path in _mounted(name).values() if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", ADDED)
def test_every_image_has_a_version(name: str) -> None:
    assert re.search(r":v?\d+\.\d+\.\d+$", ADDED[name]["image"])


@pytest.mark.parametrize("name", ADDED)
def test_only_this_machine_reaches_what_is_added(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in ADDED[name]["ports"])


@pytest.mark.parametrize("name", ADDED)
def test_what_is_waited_for_says_whether_it_is_healthy(name: str) -> None:
    assert all("healthcheck" in (SUITE | ADDED)[needed] for needed in ADDED[name]["depends_on"])


def test_the_suite_is_the_same_but_for_a_token_that_it_needs_now() -> None:
    changed = {name: service for name, service in OVERLAY["services"].items() if name in SUITE}

    assert changed.keys() == {"registry"}
    assert changed["registry"].keys() == {"environment"}
    assert re.fullmatch(r"\$\{STATUS_TOKEN:\?.+\}", changed["registry"]["environment"]["STATUS_TOKEN"])


def test_prometheus_reads_its_configuration_the_rules_and_the_token() -> None:
    mounted = _mounted("prometheus")
    [job] = PROMETHEUS["scrape_configs"]
    token = PurePosixPath(job["authorization"]["credentials_file"])

    assert mounted["/etc/prometheus/prometheus.yml"] == "./deploy/observability/prometheus-compose.yml"
    assert [f"/etc/prometheus/{rules}" in mounted for rules in PROMETHEUS["rule_files"]] == [True]
    assert str(token.parent) == "/run/secrets"
    assert token.name in ADDED["prometheus"]["secrets"]
    assert OVERLAY["secrets"][token.name] == {"environment": "STATUS_TOKEN"}


def test_prometheus_asks_the_registry_of_the_suite() -> None:
    [job] = PROMETHEUS["scrape_configs"]
    registry = SUITE["registry"]["environment"]["REGISTRY_URL"]

    assert [one["url"] for one in job["http_sd_configs"]] == [f"{registry}/prometheus/targets"]


def test_grafana_shows_the_dashboards_and_asks_the_prometheus_beside_it() -> None:
    mounted = _mounted("grafana")
    [provider] = yaml.safe_load((GRAFANA / "dashboards.yaml").read_text())["providers"]
    [source] = yaml.safe_load((GRAFANA / "datasource.yaml").read_text())["datasources"]
    home = PurePosixPath(ADDED["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert mounted[provider["options"]["path"]] == "./deploy/observability/dashboards"
    assert mounted[str(home.parent)] == "./deploy/observability/dashboards"
    assert (ROOT / "deploy/observability/dashboards" / home.name).exists()
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"


def test_grafana_has_no_account_with_a_known_password() -> None:
    environment = ADDED["grafana"]["environment"]

    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert "GF_AUTH_ANONYMOUS_ORG_ROLE" not in environment, "Viewer is the default"
