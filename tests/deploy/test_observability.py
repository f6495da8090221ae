"""The alert rules and dashboards in deploy/observability: their form, and what they name."""

import re
import subprocess
from pathlib import Path

import pytest
import server_processes
import suite
import yaml

from common.telemetry.metrics import INSTRUMENTS
from tests import prometheus
from tests.prometheus import OBSERVABILITY

OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()
DASHBOARDS = prometheus.dashboards()
EXPRESSIONS = [
    *(rule["expr"] for rule in prometheus.alerts()),
    *prometheus.recorded().values(),
    *(query for one in DASHBOARDS.values() for query in prometheus.panel_queries(one)),
]
# Prometheus' own, and prometheus-client's.
OTHERS = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}
OTHERS |= {"process_max_fds", *prometheus.recorded()}


def _exported() -> set[str]:
    names = {one.name for one in INSTRUMENTS if one.kind != "histogram"}
    histograms = {one.name for one in INSTRUMENTS if one.kind == "histogram"}
    return names | {f"{name}_{suffix}" for name in histograms for suffix in ("bucket", "count", "sum")}


def _named(expression: str) -> set[str]:
    """The metrics that an expression names: words that are no function, label or text."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\b(by|on|without)\s*\([^)]*\)", "", re.sub(r"\{[^}]*\}|\[[^]]*\]", "", bare))
    words = re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", re.sub(r"\b[a-z_0-9]+\s*\(", "(", bare))
    return set(words) - {"or", "and", "unless", "by", "bool"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_query_names_metrics_that_are_exported(expression: str) -> None:
    named = _named(expression)

    assert named
    assert not named - _exported() - OTHERS, "nothing exports these"


@pytest.mark.parametrize("alert", prometheus.alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_has_a_runbook(alert: dict[str, dict[str, str]]) -> None:
    name = str(alert["alert"])

    assert f"\n### {name}\n" in OPERATIONS, f"write a section {name} in docs/operations.md"
    assert alert["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert alert["labels"]["severity"] in ("page", "ticket")


def test_the_rules_do_what_their_tests_say() -> None:
    command = [server_processes._binary("promtool"), "test", "rules", str(OBSERVABILITY / "rules_test.yml")]

    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    tests = (OBSERVABILITY / "rules_test.yml").read_text()

    assert not [one["alert"] for one in prometheus.alerts() if f"alertname: {one['alert']}\n" not in tests]


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("prometheus.yml", []),
        ("prometheus-static.yml", []),
        # The token is there in the container only.
        ("prometheus-compose.yml", ["--syntax-only"]),
    ],
)
def test_the_configurations_are_valid(file: str, options: list[str]) -> None:
    command = [server_processes._binary("promtool"), "check", "config", *options]

    done = subprocess.run([*command, OBSERVABILITY / file], capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_static_configuration_has_every_process_on_its_default_port() -> None:
    [job] = yaml.safe_load((OBSERVABILITY / "prometheus-static.yml").read_text())["scrape_configs"]
    listed = {one["labels"]["service"]: one["targets"] for one in job["static_configs"]}

    assert listed == {line.name: [f"127.0.0.1:{line.port}"] for line in suite.procfile()}


def test_dashboards_are_told_apart() -> None:
    assert len({one["uid"] for one in DASHBOARDS.values()}) == len(DASHBOARDS) == 4


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_are_told_apart_and_let_the_viewer_choose_the_source(name: str) -> None:
    dashboard = DASHBOARDS[name]
    panels = dashboard["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert "datasource" in [variable["name"] for variable in dashboard["templating"]["list"]]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
