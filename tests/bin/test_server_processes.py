"""Facts about the backing servers that bin/dev and these tests start."""

import os
import smtplib
from pathlib import Path

import boto3
import greenstalk
import psycopg2
import pytest
import redis
import server_processes

from tests.conftest import pytest_configure
from tests.polling import eventually


@pytest.mark.kills
def test_postgres_keeps_its_data_over_a_restart(data: Path) -> None:
    port = server_processes.free_port()
    for statement in ("CREATE TABLE kept AS SELECT 1", "SELECT * FROM kept"):
        server = server_processes.postgres(data / "kept-postgres", port)
        try:
            with psycopg2.connect(
                host="127.0.0.1", port=port, user="postgres", password="postgres"
            ) as connection:
                connection.cursor().execute(statement)
            connection.close()
        finally:
            server.stop()


def test_postgres_asks_for_the_password(postgres: int) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(host="127.0.0.1", port=postgres, user="postgres", password="wrong")


@pytest.mark.kills
def test_redis_keeps_its_data_over_a_restart(tmp_path: Path) -> None:
    port = server_processes.free_port()
    server = server_processes.redis(tmp_path / "redis", port)
    with redis.Redis(port=port) as client:
        client.set("kept", "yes")
    server.stop()

    server = server_processes.redis(tmp_path / "redis", port)
    with redis.Redis(port=port) as client:
        kept = client.get("kept")
    server.stop()

    assert kept == b"yes"


@pytest.mark.kills
def test_beanstalkd_keeps_its_jobs_over_a_restart(tmp_path: Path) -> None:
    port = server_processes.free_port()
    server = server_processes.beanstalkd(tmp_path / "beanstalkd", port)
    with greenstalk.Client(("127.0.0.1", port)) as client:
        client.put("kept")
    server.stop()

    server = server_processes.beanstalkd(tmp_path / "beanstalkd", port)
    with greenstalk.Client(("127.0.0.1", port)) as client:
        kept = client.reserve(timeout=1).body
    server.stop()

    assert kept == "kept"


@pytest.mark.kills
def test_dynamodb_keeps_its_tables_over_a_restart(tmp_path: Path) -> None:
    port = server_processes.free_port()
    server = server_processes.dynamodb(tmp_path / "dynamodb", port)
    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id="dummy",
        aws_secret_access_key="dummy",
    )
    client.create_table(
        TableName="Kept",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    server.stop()

    server = server_processes.dynamodb(tmp_path / "dynamodb", port)
    tables = client.list_tables()["TableNames"]
    server.stop()
    client.close()

    assert tables == ["Kept"]


def test_a_mail_becomes_a_file(tmp_path: Path) -> None:
    server = server_processes.mail(tmp_path / "mail", server_processes.free_port())
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        client.sendmail("a@example.com", ["b@example.com"], "Subject: hello\n\nworld")

    [mail] = eventually(lambda: list((tmp_path / "mail" / "new").glob("*")))
    server.stop()

    assert "Subject: hello" in mail.read_text()


def test_a_taken_port_is_named(tmp_path: Path, redis_port: int) -> None:
    with pytest.raises(
        server_processes.NotStarted, match=f"port {redis_port}, meant for beanstalkd, is taken"
    ):
        server_processes.beanstalkd(tmp_path / "beanstalkd", redis_port)


def test_a_server_that_does_not_start_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "appendonly.aof").write_text("junk")

    with pytest.raises(server_processes.NotStarted, match=r"redis\.log"):
        server_processes.redis(tmp_path / "redis", server_processes.free_port())


def test_the_proxy_of_a_shell_is_not_for_its_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    pytest_configure()

    assert {"http_proxy", "HTTPS_PROXY"}.isdisjoint(os.environ)
