"""Settings that services share: read once from the environment, typed, and passed on."""

import logging
import socket
import sys
from ipaddress import ip_address
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from jose import jwk
from jose.exceptions import JWKError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from common.telemetry.logging import configure_logging

logger = logging.getLogger(__name__)

DEFAULT_JWT_SECRET = "dev-secret-change-me"  # noqa: S105  documented, and refused beyond loopback
DEFAULT_DB_PASSWORD = "postgres"  # noqa: S105  the specification's
MIN_SECRET_BYTES = 32  # RFC 7518, §3.2: as long as HS256's hash

EXIT_MISCONFIGURED = 3


def is_loopback(host: str) -> bool:
    """Whether only this machine can be meant."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def url(*schemes: str) -> AfterValidator:
    """Nothing, or a URL of one of these schemes. Parsers repeat what they refuse: it may hold a password."""

    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            is_place = parts.port != 0 and bool(parts.hostname or parts.scheme == "unix")
        except ValueError:
            is_place = False
        if value and not (is_place and parts.scheme in schemes):
            raise PydanticCustomError("malformed_url", f"must be a URL like {schemes[0]}://host:port")
        return value

    return AfterValidator(check)


def _no_public_key(secret: str) -> str:
    try:
        jwk.construct(secret, "HS256")
    except JWKError as exc:
        raise PydanticCustomError("key", "must be a secret, not a key or a certificate") from exc
    return secret


IN_ANY_CASE = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)

HttpUrl = Annotated[str, url("http", "https")]
PostgresUrl = Annotated[str, url("postgresql", "postgres", "postgresql+psycopg2")]
Port = Annotated[int, Field(ge=1, le=65535)]
PORT: TypeAdapter[int] = TypeAdapter(Port)
Host = Annotated[str, StringConstraints(pattern=r"^[!-~]*$")]


class Settings(BaseSettings):
    """What every process reads. The environment wins over `.env`, and both over the defaults."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    log_level: Annotated[Literal["debug", "info", "warning", "error"], IN_ANY_CASE] = "info"
    log_format: Annotated[Literal["text", "json"] | None, IN_ANY_CASE] = None
    # Every address; no registry; AWS's own DynamoDB; and a secret that is refused.
    EMPTY_SAYS_SOMETHING: ClassVar = {"host", "registry_url", "dynamodb_url", "jwt_secret"}

    # None (which no variable can say) registers nowhere: for tests. So does an empty one.
    registry_url: HttpUrl | None = "http://localhost:8006"
    jwt_secret: Annotated[str, Field(min_length=1), AfterValidator(_no_public_key)] = DEFAULT_JWT_SECRET
    jwt_alg: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_expires_minutes: int = Field(60, gt=0, le=60 * 24 * 366)

    @field_validator("*", mode="before")
    @classmethod
    def _set(cls, value: object, info: ValidationInfo) -> object:
        """An empty variable is none, as in a shell, but where to say nothing says something."""
        assert info.field_name
        if value == "" and info.field_name not in cls.EMPTY_SAYS_SOMETHING:
            return cls.model_fields[info.field_name].default
        return value

    @classmethod
    def read(cls) -> Self:
        """From the environment; where that cannot work, the process ends with one line that says why."""
        try:
            return cls()
        except (ValidationError, SettingsError) as exc:
            configure_logging("info", None)
            logger.error("cannot start: %s", _reasons(exc))  # noqa: TRY400  one line, no traceback
            sys.exit(EXIT_MISCONFIGURED)

    @property
    def weak_spots(self) -> list[str]:
        """What is good enough only as long as nobody else can reach this machine."""
        if self.jwt_secret == DEFAULT_JWT_SECRET or len(self.jwt_secret.encode()) < MIN_SECRET_BYTES:
            return [f"JWT_SECRET must be one of your own, of {MIN_SECRET_BYTES} bytes at least"]
        return []

    def begin_logging(self) -> None:
        """Log as these settings want, first of all what they lack."""
        configure_logging(self.log_level, self.log_format)
        if self.weak_spots:
            logger.warning("SAFE ON THIS MACHINE ONLY! Beyond it: %s", "; ".join(self.weak_spots))


def _reasons(exc: ValidationError | SettingsError) -> str:
    """Which variable is wrong and why, never what it says: it may be a secret."""
    if isinstance(exc, SettingsError):
        return str(exc)
    return "; ".join(
        ": ".join([*(str(part).upper() for part in error["loc"][:1]), error["msg"]])
        for error in exc.errors(include_input=False, include_url=False)
    )


class ServiceSettings(Settings):
    """What every process that serves HTTP reads besides."""

    port: int
    host: Host = "127.0.0.1"
    advertised_host: Host | None = None
    # It travels in a header.
    registry_token: Annotated[str, StringConstraints(pattern=r"^[!-~]*$")] = ""

    @field_validator("port")
    @classmethod
    def _possible(cls, port: int) -> int:
        # Not the field's type, which each service states anew with its default.
        return PORT.validate_python(port)

    @model_validator(mode="after")
    def _safe_where_it_is_bound(self) -> Self:
        if self.is_exposed and self.weak_spots:
            message = "others can reach this HOST: " + "; ".join(self.weak_spots)
            raise PydanticCustomError("unsafe", "{message}", {"message": message})
        return self

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach what binds here."""
        return not is_loopback(self.host)

    @property
    def weak_spots(self) -> list[str]:
        return super().weak_spots + ([] if self.registry_token else ["REGISTRY_TOKEN must be set"])

    @property
    def address(self) -> str:
        """The host to register: as advertised, else the one bound, else this machine's."""
        if self.advertised_host:
            return self.advertised_host
        return machine_address() if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104  binds nothing


class PostgresSettings(Settings):
    db_host: Host = "localhost"
    db_port: Port = 5432
    db_user: str = "postgres"
    db_password: str = DEFAULT_DB_PASSWORD

    @property
    def weak_spots(self) -> list[str]:
        # A server on this machine is not made reachable by who binds wider.
        is_guessable = self.db_password == DEFAULT_DB_PASSWORD and not is_loopback(self.db_host)
        return super().weak_spots + (["DB_PASSWORD must not be the default"] if is_guessable else [])


class BeanstalkdSettings(Settings):
    beanstalkd_host: Host = "127.0.0.1"
    beanstalkd_port: Port = 11300


def machine_address() -> str:
    """The address that this machine would send from; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
        except OSError:
            return "127.0.0.1"
        host: str = probe.getsockname()[0]
        return host
