"""README's tables against the code."""

import importlib
import re
from pathlib import Path

import dev
import pytest

import gateway
from tests.settings_classes import SETTINGS, VARIABLES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# Said in the section "Everywhere".
EVERYWHERE = {"GET /livez", "GET /health", "GET /"}


def _section(title: str) -> str:
    [section] = re.findall(rf"^##+ {title}\n(.*?)(?=^##|\Z)", README, flags=re.MULTILINE | re.DOTALL)
    return section


def _documented_variables() -> dict[str, str]:
    rows = re.findall(r"^\| `([A-Z_]+)` \|(.*?)\|", _section("Environment"), flags=re.MULTILINE)
    return {name: default.strip("` ") for name, default in rows}


def test_every_variable_is_documented() -> None:
    assert set(_documented_variables()) == VARIABLES


@pytest.mark.parametrize("service", SETTINGS)
def test_documented_defaults_are_the_real_ones(service: str) -> None:
    documented = _documented_variables()
    for name, field in SETTINGS[service].model_fields.items():
        if name not in {"port", "advertised_host"}:
            default = "" if field.default is None else str(field.default)
            assert documented[name.upper()] == (default.lower() if field.annotation is bool else default)


@pytest.mark.parametrize("service", SETTINGS)
def test_documented_ports_are_the_real_ones(service: str) -> None:
    port = SETTINGS[service].model_fields["port"].default

    assert re.search(rf"\| \[{service}\]\(\S+\) \| {port} \|", README)


@pytest.mark.parametrize("service", SETTINGS)
def test_the_procfile_starts_each_service_on_its_port(service: str) -> None:
    port = SETTINGS[service].model_fields["port"].default

    assert f"{service}: PORT=$(({port} + PORT % 100 * 10)) exec python" in (ROOT / "Procfile").read_text()


def test_the_procfile_has_the_nine_lines() -> None:
    names = [line.partition(":")[0] for line in (ROOT / "Procfile").read_text().splitlines()]

    assert names == [
        "registry",
        "users",
        "timelines",
        "likes",
        "polls",
        "gateway",
        "timelines_worker",
        "likes_validation_worker",
        "likes_notification_worker",
    ]


def _calls(service: str) -> set[str]:
    app = importlib.import_module(f"{service}_service.app").app
    paths = app.openapi()["paths"].items()
    return {f"{method.upper()} {path}" for path, methods in paths for method in methods}


@pytest.mark.parametrize("service", ["registry", "users", "timelines", "likes", "polls"])
def test_every_endpoint_is_documented(service: str) -> None:
    documented = set(
        re.findall(r"^\| `((?:GET|POST|DELETE) \S+)`", _section(service.title()), flags=re.MULTILINE)
    )

    assert _calls(service) - EVERYWHERE == documented


@pytest.mark.parametrize("service", ["users", "timelines", "likes", "polls"])
def test_every_endpoint_goes_through_the_gateway(service: str) -> None:
    paths = {call.partition(" ")[2] for call in _calls(service) - EVERYWHERE}

    assert paths == {path for path, name in gateway.ROUTES.items() if name == service}


def test_the_lines_to_paste_are_those_that_bin_dev_shows() -> None:
    shown = dev.BANNER.format(url="localhost:8080", mails="", data="")
    lines = [line for line in README.splitlines() if re.match(r"(\w+=\$\()?curl ", line)]

    assert len(lines) == 4
    assert all(line in shown.splitlines() for line in lines)
