"""Settings that services share: read once from the environment, typed, and passed on."""

import socket
from ipaddress import ip_address
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_JWT_SECRET = "dev-secret-change-me"  # noqa: S105  documented, and refused beyond loopback


class Settings(BaseSettings):
    """What every process reads. The environment wins over `.env`, and both over the defaults."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] | None = None
    # None (which no variable can say) registers nowhere: for tests.
    registry_url: str | None = "http://localhost:8006"
    jwt_secret: str = Field(DEFAULT_JWT_SECRET, min_length=1)
    jwt_alg: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_expires_minutes: int = Field(60, gt=0)


class ServiceSettings(Settings):
    """What every process that serves HTTP reads besides."""

    port: int = Field(ge=1, le=65535)
    host: str = "127.0.0.1"
    advertised_host: str | None = None
    registry_token: str = ""

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach what binds here."""
        if self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return True

    @property
    def address(self) -> str:
        """The host to register: as advertised, else the one bound, else this machine's."""
        if self.advertised_host:
            return self.advertised_host
        return machine_address() if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104


class PostgresSettings(Settings):
    db_host: str = "localhost"
    db_port: int = 5432
    db_user: str = "postgres"
    db_password: str = "postgres"  # noqa: S105  the specification's default


class BeanstalkdSettings(Settings):
    beanstalkd_host: str = "127.0.0.1"
    beanstalkd_port: int = 11300


def machine_address() -> str:
    """The address that this machine would send from; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
        except OSError:
            return "127.0.0.1"
        host: str = probe.getsockname()[0]
        return host
