"""The backing servers as the environment wants them: those that run already are used, the others started."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Self
from urllib.parse import urlsplit

import greenstalk
import psycopg2
import redis
import server_processes
from botocore.exceptions import BotoCoreError, ClientError
from dotenv import dotenv_values

DATA = Path(".data")
LOCAL = {"localhost", "127.0.0.1", "::1"}
MAIL_PORT = 1025
# With both of them no other PostgreSQL is asked.
DATABASE_URLS = ("USERS_DATABASE_URL", "TIMELINES_DATABASE_URL")

# What the drivers raise when something else, or nothing, answers.
PROBE_ERRORS = (
    OSError, AssertionError, greenstalk.Error, psycopg2.Error, redis.RedisError, BotoCoreError, ClientError,
)  # fmt: skip

Environment = Mapping[str, str]


class WrongServer(Exception):
    """A server is not where the variables say, or they do not say where."""


@dataclass(frozen=True)
class Expected:
    """A server that should be somewhere: the variable that says where, how to ask it, how to start it."""

    name: str
    host: str
    port: int
    variable: str
    ask: Callable[[], object]
    start: Callable[[Path, int], server_processes.Server]


def environment() -> dict[str, str]:
    """What is set in the environment wins over `.env`."""
    return {name: value for name, value in dotenv_values(".env").items() if value is not None} | dict(
        os.environ
    )


def expected(variables: Environment) -> list[Expected]:
    """Every backing server that these variables ask for, but AWS's DynamoDB and several servers of Redis."""
    needed = _beanstalkds(variables)
    scheme, _, _ = variables.get("REDIS_URL", "").partition(":")
    if not scheme.endswith(("+sentinel", "+cluster")):
        needed.append(_redis(variables))
    if not all(variables.get(name) for name in DATABASE_URLS):
        needed.append(_postgres(variables))
    if url := variables.get("DYNAMODB_URL", "http://127.0.0.1:8000"):
        needed.append(_dynamodb(url))
    if not variables.get("SMTP_HOST"):
        needed.append(
            Expected(
                "mail", server_processes.HOST, MAIL_PORT, "SMTP_HOST", lambda: None, server_processes.mail
            )
        )
    return needed


def _port(variables: Environment, name: str, default: int) -> int:
    value = variables.get(name) or str(default)
    if not (value.isdecimal() and 0 < int(value) < 65536):
        raise WrongServer(f"{name} is no port: {value}")
    return int(value)


def _place(name: str, url: str, default_port: int) -> tuple[str, int]:
    # The URL is not repeated: it may hold a password.
    no_place = WrongServer(f"{name} is no URL of a server")
    parts = urlsplit(url)
    if not parts.hostname and parts.scheme != "unix":
        raise no_place
    try:
        return parts.hostname or "localhost", parts.port or default_port
    except ValueError as exc:
        raise no_place from exc


def _postgres(variables: Environment) -> Expected:
    host, port = variables.get("DB_HOST") or "localhost", _port(variables, "DB_PORT", 5432)
    user, password = variables.get("DB_USER") or "postgres", variables.get("DB_PASSWORD") or "postgres"

    def ask() -> None:
        psycopg2.connect(
            host=host, port=port, user=user, password=password, dbname="postgres", connect_timeout=2
        ).close()

    def start(data: Path, port: int) -> server_processes.Server:
        return server_processes.postgres(data, port, user, password)

    return Expected("postgres", host, port, "DB_PORT", ask, start)


def _redis(variables: Environment) -> Expected:
    url = variables.get("REDIS_URL") or "redis://127.0.0.1:6379/0"
    host, port = _place("REDIS_URL", url, 6379)

    def ask() -> None:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()

    return Expected("redis", host, port, "REDIS_URL", ask, server_processes.redis)


def _beanstalkds(variables: Environment) -> list[Expected]:
    port = _port(variables, "BEANSTALKD_PORT", 11300)
    hosts = (variables.get("BEANSTALKD_HOST") or server_processes.HOST).split(",")
    return [_beanstalkd(host.strip(), port) for host in hosts]


def _beanstalkd(written: str, default_port: int) -> Expected:
    is_plain_ipv6 = written.count(":") > 1 and "[" not in written
    host, port = _place(
        "BEANSTALKD_HOST", f"//[{written}]" if is_plain_ipv6 else f"//{written}", default_port
    )

    def ask() -> None:
        with greenstalk.Client((host, port)) as client:
            client.stats()

    # Each has a folder of its own.
    name = "beanstalkd" if port == default_port else f"beanstalkd-{port}"
    return Expected(name, host, port, "BEANSTALKD_PORT", ask, server_processes.beanstalkd)


def _dynamodb(url: str) -> Expected:
    host, port = _place("DYNAMODB_URL", url, 80)
    ask = partial(server_processes.list_tables, url)
    return Expected("dynamodb", host, port, "DYNAMODB_URL", ask, server_processes.dynamodb)


class BackingServices:
    """The servers started here. What runs elsewhere, or ran before, is used and left alone."""

    def __init__(self, needed: list[Expected]) -> None:
        self._needed = needed
        self._stack = contextlib.ExitStack()
        self.started: list[server_processes.Server] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for one in self._needed:
                self._use_or_start(one, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _use_or_start(self, one: Expected, stack: contextlib.ExitStack) -> None:
        where = f"{one.name:10} {f'{one.host}:{one.port}':15}"
        if one.host not in LOCAL:
            say(f"{where}  elsewhere")
        elif server_processes.is_free(one.port):
            server = one.start(DATA.resolve() / one.name, one.port)
            stack.callback(server.stop)
            self.started.append(server)
            say(f"{where}  started, data in {_short(server.data)}")
        else:
            self._require(one)
            say(f"{where}  running already")

    def _require(self, one: Expected) -> None:
        try:
            one.ask()
        except PROBE_ERRORS as exc:
            reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
            raise WrongServer(
                f"Port {one.port} is taken, and not by the {one.name} that is expected there ({reason}).\n"
                f"Stop what runs there, or set {one.variable} to where {one.name} is or may be started."
            ) from exc


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def until_stopped() -> Event:
    """An event that Ctrl-C, SIGTERM and the end of the terminal set."""
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    return stop


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
