"""A real Prometheus, Debian's: `bin/setup --tests` installs it."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import server_processes
import yaml

from tests import plain_http

OBSERVABILITY = Path(__file__).parent.parent / "deploy/observability"


class Prometheus:
    """One that scrapes, every second, what a registry lists."""

    def __init__(self, data: Path, registry: str) -> None:
        self._url = f"http://127.0.0.1:{(port := server_processes.free_port())}"
        file = data / "prometheus.yml"
        file.write_text(_configuration(registry))
        options = ["--config.file", str(file), "--storage.tsdb.path", str(data / "tsdb")]
        listen = ["--web.listen-address", f"127.0.0.1:{port}"]
        command = [server_processes._binary("prometheus"), *options, *listen]
        self._server = server_processes._start("prometheus", port, command, data, self.ready)

    def ready(self) -> None:
        """Raises OSError until it is."""
        urllib.request.urlopen(f"{self._url}/-/ready").close()

    def stop(self) -> None:
        self._server.stop()

    def ask(self, query: str) -> list[Any]:
        """The samples that a query has now; fails when it is no query."""
        answer = plain_http.get(f"{self._url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        found: list[Any] = answer["data"]["result"]
        return [one for one in found if one["value"][1] != "NaN"]

    def value(self, query: str) -> float:
        """The only sample of a query; 0 if there is none."""
        found = self.ask(query)
        return float(found[0]["value"][1]) if found else 0.0


def _configuration(registry: str) -> str:
    settings = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(OBSERVABILITY / "rules.yml")]
    [job] = settings["scrape_configs"]
    job["http_sd_configs"] = [{"url": f"{registry}/prometheus/targets", "refresh_interval": "1s"}]
    return json.dumps(settings)  # which is YAML, too


def alerts() -> list[dict[str, Any]]:
    """The alerts of our rules."""
    return [rule for rule in _rules() if "alert" in rule]


def recorded() -> dict[str, str]:
    """The expressions that our rules record, by their names."""
    return {rule["record"]: rule["expr"] for rule in _rules() if "record" in rule}


def _rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((OBSERVABILITY / "rules.yml").read_text())["groups"]:
        yield from group["rules"]


def dashboards() -> dict[str, dict[str, Any]]:
    """Grafana's dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in (OBSERVABILITY / "dashboards").glob("*.json")}


def panel_queries(dashboard: dict[str, Any]) -> list[str]:
    """The queries of its panels, as Grafana would send them for one service."""
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [one.replace("$__rate_interval", "1m").replace("$service", "gateway") for one in queries]
