"""Settings that services share: read once from the environment, typed, and passed on."""

import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
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
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from common.telemetry.logging import configure_logging
from common.telemetry.sampling import DEFAULT_SAMPLER, Sampling
from common.version import VERSION

logger = logging.getLogger(__name__)

Server = tuple[str, int]
SERVER = re.compile(r"(\[[!-Z^-~]+\]|[!-9;-Z^-~]+)(?::(\d+))?")

DEFAULT_JWT_SECRET = "dev-secret-change-me"  # noqa: S105  documented, and refused beyond loopback
DEFAULT_DB_PASSWORD = "postgres"  # noqa: S105  the specification's
MIN_SECRET_BYTES = 32  # RFC 7518, §3.2: as long as HS256's hash

EXIT_MISCONFIGURED = 3

# Threads for a service's endpoints, and connections in its pool: three instances of each of two services,
# and what is left over, fit into PostgreSQL's default of 100.
THREADS = 8

# Of difflib's ratio: DB_PASSWROD and DB_PASSWORD have 0.91, DATABASE_URL and USERS_DATABASE_URL 0.8.
NEAR = 0.85
OPEN_TELEMETRY = "OTEL_"
# Two names of one, by HTTP.
EXPORTERS = {"otlp", "otlp_proto_http"}
# HOSTS and PORTS are other programs' words.
SHORTEST_COMPARED = 6


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
    return AfterValidator(_url_check(schemes))


def urls(*schemes: str) -> AfterValidator:
    """Nothing, or such URLs with commas between them."""
    check = _url_check(schemes)
    return AfterValidator(lambda value: ",".join(check(one.strip()) for one in value.split(",")))


def _url_check(schemes: Sequence[str]) -> Callable[[str], str]:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            is_place = parts.port != 0 and bool(parts.hostname or parts.scheme == "unix")
            is_valid = not value or (is_place and parts.scheme in schemes)
        except ValueError:
            is_valid = False
        if not is_valid:
            example = {"scheme": schemes[0]}
            raise PydanticCustomError("malformed_url", "must be a URL like {scheme}://host:port", example)
        return value

    return check


def servers(written: str, default_port: int) -> list[Server]:
    """Host and port of each in `host,host:port`. Raises ValueError for what is none."""
    return list(dict.fromkeys(_server(one.strip(), default_port) for one in written.split(",")))


def _server(written: str, default_port: int) -> Server:
    if "[" not in written and written.count(":") > 1:  # an IPv6 address, which has brackets before a port
        return written, default_port
    found = SERVER.fullmatch(written)
    if not found:
        raise ValueError("not a host, perhaps with a port")
    return found[1].strip("[]"), PORT.validate_python(found[2] or default_port)


def _servers_only(written: str) -> str:
    try:
        servers(written, default_port=1)
    except ValueError as exc:
        raise PydanticCustomError("malformed_servers", "must be like host or host:port,host:port") from exc
    return written


def _is_weak(secret: str) -> bool:
    return secret == DEFAULT_JWT_SECRET or len(secret.encode()) < MIN_SECRET_BYTES


def _no_public_key(secret: str) -> str:
    try:
        jwk.construct(secret, "HS256")
    except JWKError as exc:
        raise PydanticCustomError("key", "must be a secret, not a key or a certificate") from exc
    return secret


# Marks a setting for which an empty variable is a value of its own, and not the same as no variable.
EMPTY_IS_A_VALUE = object()

LOWERCASE = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)

HttpUrl = Annotated[str, url("http", "https")]
HttpUrls = Annotated[str, urls("http", "https")]
Port = Annotated[int, Field(ge=1, le=65535)]
PORT: TypeAdapter[int] = TypeAdapter(Port)
Host = Annotated[str, StringConstraints(pattern=r"^[!-~]*$")]
Secret = Annotated[str, Field(min_length=1), AfterValidator(_no_public_key)]
# What travels in a header.
HeaderToken = Annotated[str, StringConstraints(pattern=r"^[!-~]*$")]


class Settings(BaseSettings):
    """What every process reads. The environment wins over `.env`, and both over the defaults."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    log_level: Annotated[Literal["debug", "info", "warning", "error"], LOWERCASE] = "info"
    log_format: Annotated[Literal["text", "json"] | None, LOWERCASE] = None
    metrics: bool = True
    # OpenTelemetry's: those that say where to export spans, and which. Its SDK reads the rest.
    otel_exporter_otlp_endpoint: HttpUrl = ""
    otel_exporter_otlp_traces_endpoint: HttpUrl = ""
    otel_traces_sampler: str = DEFAULT_SAMPLER
    otel_traces_sampler_arg: str = ""

    # None (which no variable can say) registers nowhere: for tests. So does an empty one.
    # One of each registry.
    registry_url: Annotated[HttpUrls | None, EMPTY_IS_A_VALUE] = "http://localhost:8006"
    jwt_secret: Annotated[Secret, EMPTY_IS_A_VALUE] = DEFAULT_JWT_SECRET
    # Signs nothing: tokens that it has signed stay valid.
    jwt_secret_previous: Secret | None = None
    jwt_alg: Literal["HS256", "HS384", "HS512"] = "HS256"
    jwt_expires_minutes: Annotated[int, Field(gt=0, le=60 * 24 * 366)] = 60

    @field_validator("*", mode="before")
    @classmethod
    def _set(cls, value: object, info: ValidationInfo) -> object:
        """An empty variable is no variable, as in a shell, unless it is marked as a value."""
        assert info.field_name
        field = cls.model_fields[info.field_name]
        return field.default if value == "" and EMPTY_IS_A_VALUE not in field.metadata else value

    @classmethod
    def read(cls) -> Self:
        """From the environment; where that cannot work, the process ends with one line that says why."""
        try:
            return cls()
        except (ValidationError, SettingsError) as exc:
            configure_logging("info", None)
            logger.error("cannot start: %s", _format_errors(exc))  # noqa: TRY400  one line, no traceback
            sys.exit(EXIT_MISCONFIGURED)

    @property
    def instance(self) -> str:
        """Where the process can be reached; empty if nowhere."""
        return ""

    @property
    def insecure_settings(self) -> list[str]:
        """Settings that are safe only while other machines cannot reach this one."""
        secrets = {"JWT_SECRET": self.jwt_secret, "JWT_SECRET_PREVIOUS": self.jwt_secret_previous}
        return [
            f"{name} must be one of your own, of {MIN_SECRET_BYTES} bytes at least"
            for name, secret in secrets.items()
            if secret is not None and _is_weak(secret)
        ]

    def configure_logging(self, service: str = "") -> None:
        """Log as these settings want, first of all what they lack and what seems misspelled.

        JSON lines name the service, if it is given, with its instance and version.
        """
        process = {"service": service, "instance": self.instance, "version": VERSION} if service else {}
        configure_logging(self.log_level, self.log_format, process)
        if self.insecure_settings:
            logger.warning("SAFE ON THIS MACHINE ONLY! Beyond it: %s", "; ".join(self.insecure_settings))
        for name, meant in misspelled(_given(), type(self).model_fields):
            logger.warning("nothing reads %s: is %s meant?", name, meant)


def _given() -> dict[str, str | None]:
    """The variables of `.env` and those of the environment, which win, by their names in lower case."""
    sources = (DotEnvSettingsSource(Settings), EnvSettingsSource(Settings))
    return {name: value for source in sources for name, value in source.env_vars.items()}


def misspelled(given: Iterable[str], fields: Iterable[str]) -> list[tuple[str, str]]:
    """The variables that no setting has the name of, and the settings that they nearly are.

    A process knows its own settings alone. So near must they be that no two
    services' settings are taken for one another, nor what other programs read.
    """
    known = {field.upper() for field in fields}
    unknown = sorted({name.upper() for name in given} - known)
    compared = [name for name in unknown if len(name) >= SHORTEST_COMPARED and not _is_open_telemetrys(name)]
    return [(name, meant) for name in compared for meant in get_close_matches(name, known, 1, NEAR)]


def _is_open_telemetrys(name: str) -> bool:
    """Whether OpenTelemetry's SDK may read a variable of this name."""
    if not name.startswith(OPEN_TELEMETRY):
        return False
    from opentelemetry.sdk import environment_variables  # noqa: PLC0415  for a process that has such variables

    return hasattr(environment_variables, name)


def _open_telemetry_variables() -> dict[str, str]:
    """OpenTelemetry's variables; those of `.env` are in the environment from now on, for its SDK to read."""
    given = {name.upper(): value for name, value in _given().items()}
    # The SDK takes some empty ones for values.
    variables = {name: value for name, value in given.items() if name.startswith(OPEN_TELEMETRY) and value}
    for name in given:
        if name.startswith(OPEN_TELEMETRY):
            os.environ.pop(name, None)
    os.environ.update(variables)
    return variables


def _format_errors(exc: ValidationError | SettingsError) -> str:
    """Which variable is wrong and why, never what it says: it may be a secret."""
    if isinstance(exc, SettingsError):
        return str(exc)
    return "; ".join(
        ": ".join([*(str(part).upper() for part in error["loc"][:1]), error["msg"]])
        for error in exc.errors(include_input=False, include_url=False)
    )


class ServiceSettings(Settings):
    """What every process that serves HTTP reads besides."""

    # What machines request every few seconds gets no line in the access log, except when debugging.
    QUIET_PATHS: ClassVar[tuple[str, ...]] = ("/livez", "/health", "/metrics")
    # Whether a client may say that its trace is sampled, or is not.
    TRUSTS_SAMPLING: ClassVar = True

    port: int
    host: Annotated[Host, EMPTY_IS_A_VALUE] = "127.0.0.1"
    advertised_host: Host | None = None
    registry_token: HeaderToken = ""
    log_access: bool = True
    # Without one, only this machine may read what is measured.
    status_token: HeaderToken = ""

    def configure_logging(self, service: str = "") -> None:
        super().configure_logging(service)
        logging.getLogger("access").disabled = not self.log_access

    @field_validator("port")
    @classmethod
    def _valid_port(cls, port: int) -> int:
        # Not the field's type, which each service states anew with its default.
        return PORT.validate_python(port)

    @model_validator(mode="after")
    def _refuse_insecure_bind(self) -> Self:
        if self.is_exposed and self.insecure_settings:
            message = "others can reach this HOST: " + "; ".join(self.insecure_settings)
            raise PydanticCustomError("unsafe", "{message}", {"message": message})
        return self

    def tracing(self, service: str) -> AbstractContextManager[None]:
        """Export spans of this service meanwhile, where these settings say where to."""
        if not (self.otel_exporter_otlp_traces_endpoint or self.otel_exporter_otlp_endpoint):
            return nullcontext()
        variables = _open_telemetry_variables()
        is_disabled = variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
        exporters = variables.get("OTEL_TRACES_EXPORTER", "otlp").split(",")
        if unknown := set(exporters) - EXPORTERS - {"none"}:
            logger.warning("OTEL_TRACES_EXPORTER: spans go by otlp, not by %s", ", ".join(sorted(unknown)))
        if is_disabled or EXPORTERS.isdisjoint(exporters):
            return nullcontext()
        # Only here: it takes a fifth of a second to load, and some megabytes.
        from common.telemetry.otlp import exporting  # noqa: PLC0415

        process = {
            "service.name": service,
            "service.namespace": "microblog",
            "service.instance.id": self.instance,
            "service.version": VERSION,
        }
        sampling = Sampling.parse(self.otel_traces_sampler, self.otel_traces_sampler_arg)
        return exporting(process, sampling, variables)

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach what binds here."""
        return not is_loopback(self.host)

    @property
    def insecure_settings(self) -> list[str]:
        return super().insecure_settings + ([] if self.registry_token else ["REGISTRY_TOKEN must be set"])

    @property
    def shares_port(self) -> bool:
        """Whether other processes of this service may listen on the same port."""
        return False

    @property
    def instance(self) -> str:
        return netloc(self.address, self.port)

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
    def insecure_settings(self) -> list[str]:
        # A wider HOST does not make a PostgreSQL on this machine reachable.
        is_guessable = self.db_password == DEFAULT_DB_PASSWORD and not is_loopback(self.db_host)
        return super().insecure_settings + (["DB_PASSWORD must not be the default"] if is_guessable else [])


class BeanstalkdSettings(Settings):
    # One, or several with commas between them.
    beanstalkd_host: Annotated[str, AfterValidator(_servers_only)] = "127.0.0.1"
    # Of each that is given without one.
    beanstalkd_port: Port = 11300

    @property
    def beanstalkds(self) -> list[Server]:
        return servers(self.beanstalkd_host, self.beanstalkd_port)


def netloc(host: str, port: int) -> str:
    """Host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def machine_address() -> str:
    """The address that this machine would send from; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
        except OSError:
            return "127.0.0.1"
        host: str = probe.getsockname()[0]
        return host
