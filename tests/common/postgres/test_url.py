"""The URL of a database, as libpq and SQLAlchemy have it."""

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
import server_processes
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import MetaData, text

from common.postgres.database import Database
from common.postgres.url import PostgresUrl, database_url, libpq_parameters
from common.settings import PostgresSettings
from tests.own_server import Own, OwnServer
from tests.polling import eventually, succeeds
from tests.postgres_operator import configure, operate
from users_service.settings import UsersSettings
from users_service.store import MIGRATIONS

SETTINGS = PostgresSettings(_env_file=None, db_host="db.example", db_port=5433, db_password="p@ss/word")
URL: TypeAdapter[str] = TypeAdapter(PostgresUrl)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (None, "postgresql+psycopg2://postgres:p%40ss%2Fword@db.example:5433/things"),
        ("postgresql://u:p@h:1/other", "postgresql+psycopg2://u:p@h:1/other"),
        ("postgres://u:p@h/other?sslmode=require", "postgresql+psycopg2://u:p@h/other?sslmode=require"),
        ("postgresql://u:p@h", "postgresql+psycopg2://u:p@h/things"),
    ],
)
def test_a_url_given_whole_wins_over_its_parts(override: str | None, expected: str) -> None:
    url = database_url(SETTINGS, override, "things")

    assert url.render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg2://h/d", {"host": "h"}),
        ("postgresql://u%40x:p%2Fw%3F%23@h/d", {"host": "h", "user": "u@x", "password": "p/w?#"}),
        ("postgresql://u:a?b@h/d", {"host": "h", "user": "u", "password": "a?b"}),
        ("postgresql://h:1,g:2/d", {"host": "h,g", "port": "1,2"}),
        ("postgresql://h,g:2/d", {"host": "h,g", "port": ",2"}),
        ("postgresql://[::1]:1/d", {"host": "::1", "port": "1"}),
        ("postgresql://[::1]:1,[::2]:2/d", {"host": "::1,::2", "port": "1,2"}),
        ("postgresql://f/d?host=h:1&host=g:2", {"host": "h,g", "port": "1,2"}),
        ("postgresql:///d?host=h:1,g:2", {"host": "h,g", "port": "1,2"}),
        ("postgresql:///d?host=h&host=g&port=1&port=2", {"host": "h,g", "port": "1,2"}),
        ("postgresql:///d?host=[::1]:1&host=::2", {"host": "::1,::2", "port": "1,"}),
        ("postgresql:///d?host=/run/postgresql", {"host": "/run/postgresql"}),
        ("postgresql://%2Frun%2Fpostgresql/d", {"host": "/run/postgresql"}),
        ("postgresql:///d", {}),
        ("postgresql://h/d?options=-c%20a.b%3Dc", {"host": "h", "options": "-c a.b=c"}),
        (
            "postgresql://h:1,g:2/d?target_session_attrs=read-write&sslmode=verify-full",
            {"host": "h,g", "port": "1,2", "target_session_attrs": "read-write", "sslmode": "verify-full"},
        ),
    ],
)
def test_a_url_says_to_libpq_all_that_it_says(url: str, expected: dict[str, str]) -> None:
    parameters = libpq_parameters(database_url(SETTINGS, URL.validate_python(url), "things"))

    assert parameters == expected | {"dbname": "d"}


@pytest.mark.parametrize(
    "url",
    [
        "mysql://h/d",
        "h/d",
        "postgresql://h:0/d",
        "postgresql://h:70000/d",
        "postgresql://h:port/d",
        "postgresql://[::1/d",
        "postgresql://h:1,g:2,f:3/d?port=1,2",
        "postgresql://h/d?sslmod=require",
        "postgresql://h/d?sslmode=always",
        "postgresql://h/d?target_session_attrs=any-thing",
        "postgresql://h/d?connect_timeout=soon",
        "postgresql://h/d?sslmode=require&sslmode=disable",
        "postgresql://h/d%zz",
    ],
)
def test_a_url_that_libpq_would_refuse_or_ignore_a_part_of_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="must be a URL like postgresql://"):
        URL.validate_python(url)


@pytest.mark.usefixtures("root_logger")
def test_a_wrong_url_ends_the_process_with_one_line_that_names_the_variable_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("USERS_DATABASE_URL", "postgresql://u:s3cret@h/d?sslmode=s3cret")
    with pytest.raises(SystemExit) as ended:
        UsersSettings.read()

    [line] = capsys.readouterr().out.splitlines()
    assert ended.value.code == 3
    assert "USERS_DATABASE_URL" in line
    assert "s3cret" not in line


@pytest.fixture
def servers(own: Own) -> Iterator[list[OwnServer]]:
    """Two servers, of which the first is read-only. As a standby, it has the same databases."""
    servers = [own(partial(server_processes.postgres, durable=False)) for _ in range(2)]
    for server in servers:
        server.start()
    _make_read_only(servers[0])
    return servers


def _connect(hosts: str) -> Database:
    url = f"postgresql://postgres:postgres@{hosts}"
    return Database.connect(database_url(SETTINGS, url, "failover"), MetaData())


def _make_read_only(server: OwnServer) -> None:
    operate(server.port, "CREATE DATABASE failover")
    configure(server.port, "SET default_transaction_read_only = on")


def _port(database: Database) -> int:
    """The port of the server that a new connection reaches."""
    database.close()
    [(port,)] = database.rows(text("SELECT current_setting('port')"), {})
    return int(port)


@pytest.mark.kills
@pytest.mark.parametrize(
    "form",
    [
        "localhost:{},localhost:{}/failover?target_session_attrs=read-write",
        "h/failover?host=localhost:{}&host=localhost:{}&target_session_attrs=read-write",
    ],
)
def test_of_several_servers_the_one_that_can_be_written_to_is_used(
    servers: list[OwnServer], form: str
) -> None:
    with closing(_connect(form.format(*(server.port for server in servers)))) as database:
        eventually(lambda: succeeds(lambda: database.prepare(MIGRATIONS), Database.outages))

        assert _port(database) == servers[1].port
