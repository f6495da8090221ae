"""The URL of a database: libpq's forms, and SQLAlchemy's of several hosts."""

import re
from typing import Annotated
from urllib.parse import quote, unquote

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from sqlalchemy import URL

from common.settings import PORT, PostgresSettings

DRIVER = "postgresql+psycopg2"
# A password may have a question mark in it.
PARTS = re.compile(r"(?:postgresql|postgres|postgresql\+psycopg2)://((?:[^@/]*@)?[^?]*)\??(.*)", re.DOTALL)
HOST_AND_PORT = re.compile(r"([^/:]*|\[[^\]]*\]):(\d+)")
NUMBERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout",
)  # fmt: skip
NO_SOCKET = "/nonexistent"


def _checked(url: str) -> str:
    """A URL that libpq would take. Parsers repeat what they refuse: it may hold a password."""
    try:
        if url:
            _require_possible(_parsed(url))
    except (ValueError, psycopg2.Error) as exc:
        form = "postgresql://user:password@host:port/name?parameter=value, as libpq takes it"
        raise PydanticCustomError("malformed_url", "must be a URL like {form}", {"form": form}) from exc
    return url


PostgresUrl = Annotated[str, AfterValidator(_checked)]


def database_url(settings: PostgresSettings, override: str | None, name: str) -> URL:
    """The URL given as a whole, or else made of its parts. Several hosts, and a socket, are in its query."""
    if not override:
        return URL.create(
            DRIVER, settings.db_user, settings.db_password, settings.db_host, settings.db_port, name
        )
    given = _parsed(override)
    user, password = given.pop("user", None), given.pop("password", None)
    database = given.pop("dbname", None) or name
    host, port = given.get("host"), given.get("port")
    if not host or host.startswith("/") or "," in f"{host}{port}":
        return URL.create(DRIVER, user, password, database=database, query=given)
    rest = {name: value for name, value in given.items() if name not in ("host", "port")}
    return URL.create(DRIVER, user, password, host, int(port) if port else None, database, rest)


def libpq_parameters(url: URL) -> dict[str, str]:
    """What libpq is to be given."""
    parts = {
        "host": url.host, "port": url.port, "user": url.username, "password": url.password,
        "dbname": url.database,
    }  # fmt: skip
    given = {name: str(value) for name, value in parts.items() if value is not None}
    return given | {name: str(value) for name, value in url.query.items()}


def _parsed(url: str) -> dict[str, str]:
    """libpq's parameters. Raises ValueError and psycopg2.Error for what it would refuse, or ignore."""
    parts = PARTS.fullmatch(url)
    if not parts:
        raise ValueError
    place, query = parts.groups()
    given: dict[str, list[str]] = {}
    for one in filter(None, query.split("&")):
        name, _, value = one.partition("=")
        given.setdefault(name, []).append(value)
    # libpq would take the last one only. SQLAlchemy repeats the host, and writes the port behind it.
    if any(len(values) > 1 for name, values in given.items() if name not in ("host", "port")):
        raise ValueError
    joined = "&".join(f"{name}={','.join(values)}" for name, values in _split_ports(given).items())
    parsed: dict[str, str] = parse_dsn(f"postgresql://{place}?{joined}")
    return parsed


def _split_ports(query: dict[str, list[str]]) -> dict[str, list[str]]:
    hosts = [unquote(host) for value in query.get("host", []) for host in value.split(",")]
    found = [HOST_AND_PORT.fullmatch(host) for host in hosts]
    if not any(found):
        return query
    names = [match[1].strip("[]") if match else host for match, host in zip(found, hosts, strict=True)]
    ports = [match[2] if match else "" for match in found]
    return query | {"host": [quote(name, safe="") for name in names], "port": ports}


def _require_possible(given: dict[str, str]) -> None:
    """libpq checks a parameter's value when it connects: let it, to a socket that does not exist."""
    for port in filter(None, given.get("port", "").split(",")):
        PORT.validate_python(port)
    for name in NUMBERS:
        int(given.get(name) or 0)
    sockets = ",".join([NO_SOCKET] * (given.get("host", "").count(",") + 1))
    try:
        psycopg2.connect(make_dsn(**given | {"host": sockets, "hostaddr": ""})).close()
    except psycopg2.OperationalError as exc:
        if NO_SOCKET not in str(exc):
            raise
