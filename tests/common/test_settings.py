"""Settings: where they come from, and which ones are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from common.settings import ServiceSettings


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
    assert ServiceSettings(_env_file=None, port=1, host=host).is_exposed is is_exposed


def test_the_advertised_host_wins() -> None:
    settings = ServiceSettings(_env_file=None, port=1, host="0.0.0.0", advertised_host="users.internal")

    assert settings.address == "users.internal"


def test_the_host_is_advertised_as_it_is() -> None:
    assert ServiceSettings(_env_file=None, port=1, host="127.0.0.2").address == "127.0.0.2"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_a_wildcard_is_not_advertised(host: str) -> None:
    assert ServiceSettings(_env_file=None, port=1, host=host).address not in ("0.0.0.0", "::", "")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=127.0.0.2\nSOMETHING_ELSE=1\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.chdir(tmp_path)

    settings = ServiceSettings()

    assert (settings.port, settings.host) == (2, "127.0.0.2")


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
        ServiceSettings(**{"_env_file": None, "port": 1} | refused)


def test_settings_do_not_change() -> None:
    settings = ServiceSettings(_env_file=None, port=1)

    with pytest.raises(ValidationError):
        settings.port = 2
