"""Settings: where they come from, and which ones are refused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError

from common.server.access_log import access_log
from common.settings import (
    DEFAULT_JWT_SECRET,
    BeanstalkdSettings,
    PostgresSettings,
    ServiceSettings,
    Settings,
    misspelled,
)
from likes_service.settings import LikesSettings
from polls_service.settings import PollsSettings
from timelines_service.settings import TimelinesSettings
from users_service.settings import UsersSettings

SAFE = {"jwt_secret": "x" * 32, "registry_token": "registry-token"}


def _settings(**given: Any) -> ServiceSettings:
    return ServiceSettings(**{"_env_file": None, "port": 1} | given)


class Stored(ServiceSettings, PostgresSettings):
    """What a service with a database reads."""


@pytest.mark.parametrize(
    ("host", "is_exposed"),
    [
        ("127.0.0.1", False),
        ("127.0.0.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.0.0.1", True),
        ("example.com", True),
        ("", True),
    ],
)
def test_what_others_can_reach_is_exposed(host: str, is_exposed: bool) -> None:
    assert _settings(host=host, **SAFE).is_exposed is is_exposed


def test_the_advertised_host_wins() -> None:
    assert _settings(host="0.0.0.0", advertised_host="users.internal", **SAFE).address == "users.internal"


def test_the_host_is_advertised_as_it_is() -> None:
    assert _settings(host="127.0.0.2").address == "127.0.0.2"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_wildcard_is_not_advertised(host: str) -> None:
    assert _settings(host=host, **SAFE).address not in ("0.0.0.0", "::", "")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=127.0.0.2\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.chdir(tmp_path)

    settings = ServiceSettings()

    assert (settings.port, settings.host) == (2, "127.0.0.2")


@pytest.mark.parametrize(("variable", "value"), [("LOG_LEVEL", "WARNING"), ("LOG_FORMAT", "JSON")])
def test_how_to_log_may_be_said_in_capitals(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    assert getattr(_settings(), variable.lower()) == value.lower()


@pytest.mark.parametrize(
    "refused",
    [
        {"port": 0},
        {"port": 65536},
        {"jwt_secret": ""},
        {"jwt_alg": "none"},
        {"jwt_alg": "RS256"},
        {"jwt_expires_minutes": 0},
        {"log_level": "loud"},
        {"log_format": "xml"},
    ],
)
def test_what_cannot_work_is_refused(refused: dict) -> None:
    with pytest.raises(ValidationError):
        _settings(**refused)


@pytest.mark.parametrize(
    ("weak", "variable"),
    [
        ({"jwt_secret": DEFAULT_JWT_SECRET}, "JWT_SECRET"),
        ({"jwt_secret": "x" * 31}, "JWT_SECRET"),
        ({"jwt_secret_previous": DEFAULT_JWT_SECRET}, "JWT_SECRET_PREVIOUS"),
        ({"jwt_secret_previous": "x" * 31}, "JWT_SECRET_PREVIOUS"),
        ({"registry_token": ""}, "REGISTRY_TOKEN"),
        ({"db_host": "db.internal"}, "DB_PASSWORD"),
    ],
)
def test_what_is_weak_is_refused_beyond_loopback_only(weak: dict[str, str], variable: str) -> None:
    weak = {"_env_file": None, "port": 1} | SAFE | weak

    assert variable in Stored(**weak).insecure_settings[0]
    with pytest.raises(ValidationError, match=variable):
        Stored(**weak, host="0.0.0.0")


def test_a_database_on_this_machine_may_have_the_default_password() -> None:
    assert Stored(_env_file=None, port=1, host="0.0.0.0", **SAFE).insecure_settings == []


@pytest.mark.usefixtures("root_logger")
def test_what_is_weak_is_said_once_and_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    _settings().configure_logging()

    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["level"] == "warning"
    assert "JWT_SECRET" in line
    assert "REGISTRY_TOKEN" in line


@pytest.mark.usefixtures("root_logger")
def test_what_is_safe_needs_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    _settings(**SAFE).configure_logging()

    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("root_logger")
def test_a_misspelled_variable_is_said_with_the_right_name_and_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("DB_PASSWROD=s3cret\n")
    monkeypatch.chdir(tmp_path)
    Stored(port=1, **SAFE).configure_logging()

    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line)["message"] == "nothing reads DB_PASSWROD: is DB_PASSWORD meant?"
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("DB_PASSWROD", "DB_PASSWORD"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("db_usr", "DB_USER"),
        ("JWT_SECERT", "JWT_SECRET"),
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ],
)
def test_what_is_nearly_a_setting_is_taken_for_it(given: str, meant: str) -> None:
    assert misspelled([given], Stored.model_fields) == [(given.upper(), meant)]


@pytest.mark.parametrize(
    "given",
    [
        *(
            "DB_PASSWORD",
            "db_password",
            "DB_NAME",
            "DATABASE_URL",
            "DB_USERNAME",
            "HOSTNAME",
            "HOSTS",
            "PORTS",
        ),
        *("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_SERVICE_NAME", "OTEL_BSP_SCHEDULE_DELAY"),
    ],
)
def test_what_is_a_setting_or_another_programs_is_not_taken_for_one(given: str) -> None:
    assert misspelled([given], Stored.model_fields) == []


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("value", "is_logged"), [("", True), ("on", True), ("off", False)])
def test_the_access_log_can_be_turned_off(
    value: str, is_logged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_ACCESS", value)
    monkeypatch.setattr(access_log, "disabled", False)
    Stored(_env_file=None, port=1, **SAFE).configure_logging()

    assert access_log.isEnabledFor(logging.INFO) is is_logged


JUNK = "s3cret\tjunk"
# Variables of which every text is a possible value.
ANY_TEXT = {
    "JWT_SECRET",
    "JWT_SECRET_PREVIOUS",
    "DB_USER",
    "DB_PASSWORD",
    "USERS_DB_NAME",
    "TIMELINES_DB_NAME",
}
ANY_TEXT |= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
# What is wrong is warned of and ignored.
ANY_TEXT |= {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
SETTINGS = [UsersSettings, TimelinesSettings, LikesSettings, PollsSettings]
VARIABLES = sorted({(name.upper(), kind) for kind in SETTINGS for name in kind.model_fields}, key=str)


def _read_junk(kind: type[ServiceSettings], variable: str) -> None:
    kind.read()
    pytest.fail(
        f"{kind.__name__} should refuse {JUNK!r}, or add {variable} to ANY_TEXT in {Path(__file__).name}"
    )


@pytest.mark.usefixtures("root_logger")
@pytest.mark.parametrize(("variable", "kind"), [one for one in VARIABLES if one[0] not in ANY_TEXT], ids=str)
def test_junk_in_a_variable_ends_the_process_with_a_line_that_names_only_the_variable(
    variable: str,
    kind: type[ServiceSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, JUNK)

    with pytest.raises(SystemExit) as ended:
        _read_junk(kind, variable)

    [line] = capsys.readouterr().out.splitlines()
    assert ended.value.code == 3
    assert f"cannot start: {variable}: " in line
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("variable", "kind"),
    [one for one in VARIABLES if one[0] not in {"HOST", "REGISTRY_URL", "DYNAMODB_URL", "JWT_SECRET"}],
    ids=str,
)
def test_an_empty_variable_is_none(
    variable: str, kind: type[ServiceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")

    assert kind(_env_file=None) == kind.model_construct()


@pytest.mark.parametrize(
    ("variable", "kind"), [("REGISTRY_URL", UsersSettings), ("DYNAMODB_URL", PollsSettings)]
)
def test_an_empty_url_says_something(
    variable: str, kind: type[ServiceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")

    assert getattr(kind(_env_file=None), variable.lower()) == ""


class Listed(Settings):
    names: list[str] = Field(default_factory=list)


@pytest.mark.usefixtures("root_logger")
def test_junk_where_a_list_is_wanted_is_not_repeated_either(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAMES", JUNK)

    with pytest.raises(SystemExit):
        Listed.read()

    said = capsys.readouterr().out
    assert "names" in said
    assert "s3cret" not in said


PUBLIC_KEYS = ["-----BEGIN PUBLIC KEY-----", "ssh-rsa AAAA"]


@pytest.mark.parametrize("secret", ["", *PUBLIC_KEYS])
def test_what_signs_nothing_well_is_no_secret(secret: str) -> None:
    with pytest.raises(ValidationError):
        _settings(jwt_secret=secret)


@pytest.mark.parametrize("secret", PUBLIC_KEYS)
def test_a_public_key_is_no_previous_secret(secret: str) -> None:
    with pytest.raises(ValidationError):
        _settings(jwt_secret_previous=secret)


@pytest.mark.parametrize("address", ["http://[::1]:8006", "https://registry.internal/path", ""])
def test_a_url_may_have_any_host(address: str) -> None:
    assert _settings(registry_url=address).registry_url == address


def test_settings_do_not_change() -> None:
    settings = _settings()

    with pytest.raises(ValidationError):
        settings.port = 2


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("127.0.0.1", [("127.0.0.1", 11300)]),
        ("queue.internal:11301", [("queue.internal", 11301)]),
        ("a,b:11301", [("a", 11300), ("b", 11301)]),
        ("a, b", [("a", 11300), ("b", 11300)]),
        ("::1", [("::1", 11300)]),
        ("[::1],[::1]:11301", [("::1", 11300), ("::1", 11301)]),
        ("a,a:11300,b,a", [("a", 11300), ("b", 11300)]),
    ],
)
def test_there_may_be_several_beanstalkds(written: str, found: list[tuple[str, int]]) -> None:
    assert BeanstalkdSettings(_env_file=None, beanstalkd_host=written).beanstalkds == found


@pytest.mark.parametrize(
    "written", ["a,", ",", "a b", "a:", "a:x", "a:0", "a:65536", ":11300", "[::1", "[]:1", "ä"]
)
def test_what_names_no_beanstalkd_is_refused_without_being_repeated(written: str) -> None:
    with pytest.raises(ValidationError, match="must be like host or host:port,host:port") as refused:
        BeanstalkdSettings(_env_file=None, beanstalkd_host=written)

    assert written not in str(refused.value) or len(written) < 3
