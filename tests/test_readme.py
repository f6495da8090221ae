"""README's tables against the code."""

import importlib
import re
from pathlib import Path

import dev
import pytest

import gateway
from common.settings import misspelled
from tests.settings_classes import SETTINGS, VARIABLES, WORKERS
from tests.tables import require_rows

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROCFILE = (ROOT / "Procfile").read_text()

# Said in the section "Everywhere".
EVERYWHERE = {"GET /livez", "GET /health", "GET /"}


def _section(title: str) -> str:
    [section] = re.findall(rf"^##+ {title}\n(.*?)(?=^##|\Z)", README, flags=re.MULTILINE | re.DOTALL)
    return section


def _documented_variables() -> dict[str, str]:
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*?)\|", _section("Environment"), flags=re.MULTILINE)
    return {name: default.strip("` ") for name, default in rows}


def test_every_variable_is_documented() -> None:
    require_rows("README's table of variables (Environment)", _documented_variables(), VARIABLES)


@pytest.mark.parametrize("service", SETTINGS)
def test_documented_defaults_are_the_real_ones(service: str) -> None:
    documented = _documented_variables()
    for name, field in SETTINGS[service].model_fields.items():
        if name not in {"port", "advertised_host"}:
            default = "" if field.default is None else str(field.default)
            default = default.lower() if field.annotation is bool else default
            hint = f"the default of {name.upper()} in README's table of variables should be: {default!r}"
            assert documented.get(name.upper()) == default, hint


@pytest.mark.parametrize("service", SETTINGS)
def test_documented_ports_are_the_real_ones(service: str) -> None:
    port = SETTINGS[service].model_fields["port"].default
    row = rf"\| \[{service}\]\(\S+\) \| {port} \|"

    assert re.search(row, README), f"the row of {service} in README's first table should have the port {port}"


@pytest.mark.parametrize("service", SETTINGS)
def test_the_procfile_starts_each_service_on_its_port(service: str) -> None:
    port = SETTINGS[service].model_fields["port"].default
    instance = "${HONCHO_PROCESS_NAME:-${PS:-1}}"
    line = f"{service}: n={instance}; PORT=$(({port} + (${{n##*.}} - 1) * 10)) exec python"

    assert line in PROCFILE, f"a line of Procfile should begin: {line}"


@pytest.mark.parametrize("worker", WORKERS)
def test_workers_have_their_documented_ports(worker: str) -> None:
    port = WORKERS[worker].model_fields["port"].default
    instance = "${HONCHO_PROCESS_NAME:-${PS:-1}}"
    line = f"{worker}: n={instance}; PORT=$(({port} + (${{n##*.}} - 1) * 10)) exec python"

    assert line in PROCFILE, f"a line of Procfile should begin: {line}"
    assert f"| {worker} | {port} |" in README, f"README's table of workers should have {worker} on {port}"


def test_no_two_of_three_instances_have_one_port() -> None:
    first = [one.model_fields["port"].default for one in (*SETTINGS.values(), *WORKERS.values())]
    ports = [port + 10 * number for port in first for number in range(3)]

    assert len(set(ports)) == len(ports)


def test_the_procfile_has_the_nine_lines() -> None:
    names = [line.partition(":")[0] for line in PROCFILE.splitlines()]

    assert names == [
        *("registry", "users", "timelines", "likes", "polls", "gateway"),
        *("timelines_worker", "likes_validation_worker", "likes_notification_worker"),
    ], "a new process: add it to this list, and count again in README and docs (six apps, three workers)"


def _calls(service: str) -> set[str]:
    app = importlib.import_module(f"{service}_service.app").app
    paths = app.openapi()["paths"].items()
    return {f"{method.upper()} {path}" for path, methods in paths for method in methods}


@pytest.mark.parametrize("service", ["registry", "users", "timelines", "likes", "polls"])
def test_every_endpoint_is_documented(service: str) -> None:
    rows = re.findall(r"^\| `([A-Z]+ /\S*)`", _section(service.title()), flags=re.MULTILINE)

    require_rows(f"README's table of {service}", rows, _calls(service) - EVERYWHERE)


@pytest.mark.parametrize("service", ["users", "timelines", "likes", "polls"])
def test_every_endpoint_goes_through_the_gateway(service: str) -> None:
    paths = {call.partition(" ")[2] for call in _calls(service) - EVERYWHERE}

    routed = {path for path, route in gateway.ROUTES.items() if route.service_name == service}
    require_rows(f"ROUTES in gateway.py, for {service}", routed, paths)


def test_the_lines_to_paste_are_those_that_bin_dev_shows() -> None:
    _, lines, _ = dev.BANNER.format(host="localhost:8080", mails="", logs="").split("\n\n")

    assert f"```bash\n{lines}\n```" in README


@pytest.mark.parametrize("service", SETTINGS)
def test_no_variable_is_taken_for_another_misspelled(service: str) -> None:
    assert misspelled(VARIABLES, SETTINGS[service].model_fields) == []
