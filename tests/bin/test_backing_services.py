"""What bin/dev makes of the environment and of what runs already."""

from pathlib import Path
from urllib.error import HTTPError

import backing_services
import dev
import pytest
import server_processes
from suite import procfile


def _expected(name: str, **variables: str) -> backing_services.Expected:
    [found] = [one for one in backing_services.expected(variables) if one.name == name]
    return found


def test_a_server_that_runs_already_is_used(redis_port: int) -> None:
    with backing_services.BackingServices(
        [_expected("redis", REDIS_URL=f"redis://127.0.0.1:{redis_port}/0")]
    ) as used:
        assert used.started == []


def test_a_server_elsewhere_is_not_started() -> None:
    with backing_services.BackingServices([_expected("postgres", DB_HOST="db.example.com")]) as used:
        assert used.started == []


def test_a_server_that_is_missing_is_started_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    port = server_processes.free_port()
    with backing_services.BackingServices([_expected("beanstalkd", BEANSTALKD_PORT=str(port))]) as used:
        assert [server.port for server in used.started] == [port]

    assert server_processes.is_free(port)


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("postgres", "DB_PORT", "{}"),
        ("beanstalkd", "BEANSTALKD_PORT", "{}"),
        ("dynamodb", "DYNAMODB_URL", "http://127.0.0.1:{}"),
    ],
)
def test_a_stranger_on_a_port_is_named_with_the_variable_that_moves_it(
    redis_port: int, name: str, variable: str, value: str
) -> None:
    needed = _expected(name, **{variable: value.format(redis_port)})

    with (
        pytest.raises(backing_services.WrongServer, match=f"(?s)Port {redis_port} is taken.*{variable}"),
        backing_services.BackingServices([needed]),
    ):
        pass


def test_a_postgres_that_refuses_the_password_is_named_too(postgres: int) -> None:
    needed = _expected("postgres", DB_PORT=str(postgres), DB_PASSWORD="wrong")

    with (
        pytest.raises(backing_services.WrongServer, match="password authentication failed"),
        backing_services.BackingServices([needed]),
    ):
        pass


def test_each_of_several_beanstalkds_is_expected_with_a_folder_of_its_own() -> None:
    found = backing_services.expected({"BEANSTALKD_HOST": "localhost,::1,[::1]:11301, far:11302"})[:4]

    assert [(one.name, one.host, one.port) for one in found] == [
        ("beanstalkd", "localhost", 11300),
        ("beanstalkd", "::1", 11300),
        ("beanstalkd-11301", "::1", 11301),
        ("beanstalkd-11302", "far", 11302),
    ]


def test_an_empty_dynamodb_url_and_a_mail_server_of_ones_own_start_nothing() -> None:
    names = {
        one.name for one in backing_services.expected({"DYNAMODB_URL": "", "SMTP_HOST": "mail.example.com"})
    }

    assert names == {"postgres", "redis", "beanstalkd"}


def test_databases_that_are_elsewhere_need_no_postgres_here() -> None:
    urls = dict.fromkeys(backing_services.DATABASE_URLS, "postgresql://db.example.com/x")

    assert "postgres" not in {one.name for one in backing_services.expected(urls)}


@pytest.mark.parametrize("scheme", ["redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"])
def test_a_redis_of_several_servers_is_not_started_here(scheme: str) -> None:
    needed = backing_services.expected({"REDIS_URL": f"{scheme}://127.0.0.1:7,[::1]:7/one"})

    assert "redis" not in {one.name for one in needed}


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_what_is_no_port_is_said(port: str) -> None:
    with pytest.raises(backing_services.WrongServer, match="DB_PORT"):
        backing_services.expected({"DB_PORT": port})


@pytest.mark.parametrize("variable", ["REDIS_URL", "DYNAMODB_URL"])
@pytest.mark.parametrize("url", ["redis://:s3cret@127.0.0.1:x/0", "s3cret:6379"])
def test_a_url_that_leads_nowhere_is_said_but_not_repeated(variable: str, url: str) -> None:
    with pytest.raises(backing_services.WrongServer, match=variable) as said:
        backing_services.expected({variable: url})

    assert "s3cret" not in str(said.value)


def test_an_empty_variable_is_none() -> None:
    assert _expected("postgres", DB_PORT="", DB_HOST="").port == 5432
    assert _expected("mail", SMTP_HOST="").port == backing_services.MAIL_PORT


def test_an_empty_variable_is_none_for_the_processes_of_bin_dev_too() -> None:
    given = dev._for_processes({"SMTP_HOST": "", "SMTP_PORT": "", "LOG_FORMAT": ""})

    assert (given["SMTP_HOST"], given["SMTP_PORT"]) == (
        server_processes.HOST,
        str(backing_services.MAIL_PORT),
    )
    assert given["LOG_FORMAT"] == "text"


def test_what_runs_here_is_asked_past_any_proxy(monkeypatch: pytest.MonkeyPatch, dynamodb_port: int) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server_processes.free_port()}")
    url = f"http://127.0.0.1:{dynamodb_port}"

    server_processes.list_tables(url)
    with pytest.raises(HTTPError):  # it answers
        dev.DIRECTLY.open(f"{url}/health/none")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DB_PORT=1\nDB_USER=file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DB_PORT", "2")
    variables = backing_services.environment()

    assert (variables["DB_PORT"], variables["DB_USER"]) == ("2", "file")


def test_a_taken_application_port_is_named_with_its_line(redis_port: int) -> None:
    text = f"users: n=1; PORT=$(({redis_port} + $n)) exec python -m users_service.app\nw: exec x\n"

    with pytest.raises(dev.StartupAborted, match=f"(?s)Port {redis_port} is taken.*`users:`"):
        dev._require_free_ports(procfile(text))
