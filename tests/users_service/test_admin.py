"""The operators' command for accounts, on the database that a users service serves."""

import io
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest
import server_processes
from fastapi.testclient import TestClient
from sqlalchemy import text

from common.jobs.tubes import event_tube
from tests.commands import run_here
from tests.polling import eventually
from tests.users_service.conftest import PASSWORD
from users_service.admin import main
from users_service.deletion_saga import OTHERS
from users_service.settings import UsersSettings
from users_service.store import UsersStore

NEW = "battery staple"
TOLD = text("SELECT tube FROM users_outbox WHERE payload ->> 'username' = 'alice' ORDER BY tube")

Run = Callable[..., subprocess.CompletedProcess[str]]
Headers = dict[str, str]


@pytest.fixture
def run(
    settings: UsersSettings,
    root_logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command in this process."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        defaults = {"DB_PORT": str(settings.db_port), "USERS_DB_NAME": settings.users_db_name}
        for name, value in (defaults | variables).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return run_here(main, arguments, monkeypatch, capsys)

    return run


def sign_in(client: TestClient, password: str = PASSWORD) -> Headers | None:
    answer = client.post("/login", json={"username": "alice", "password": password})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"} if answer.is_success else None


@pytest.fixture
def alice(client: TestClient) -> Headers:
    """The headers of a request of alice, who is registered."""
    client.post("/register", json={"username": "alice", "password": PASSWORD})
    headers = sign_in(client)
    assert headers
    return headers


def is_revoked(client: TestClient, headers: Headers) -> bool:
    answer = client.get("/users/alice", headers=headers)
    return answer.status_code == 401 and answer.json()["code"] == "invalid_token"


def test_a_deletion_by_an_operator_needs_no_password(
    run: Run, client: TestClient, alice: Headers, store: UsersStore
) -> None:
    told = [event_tube(service) for service in sorted(OTHERS)]

    assert run("delete", "Alice", "--yes").returncode == 0
    assert client.get("/users/alice").status_code == 404
    assert [tube for (tube,) in store._database.rows(TOLD, {})] == told
    eventually(lambda: is_revoked(client, alice))


def test_a_deleted_account_is_not_deleted_again(run: Run, alice: Headers) -> None:
    run("delete", "alice", "--yes")
    again = run("delete", "alice", "--yes")

    assert again.returncode == 1
    assert again.stderr.endswith("There is no user alice.\n")


def test_a_reset_password_is_random_and_alone_on_standard_output(
    run: Run, client: TestClient, alice: Headers
) -> None:
    printed = [run("reset-password", "alice", "--yes").stdout for _ in range(2)]

    assert len(set(printed)) == 2
    assert sign_in(client, printed[1].removesuffix("\n"))
    assert not sign_in(client)


def test_a_reset_password_may_come_from_standard_input(run: Run, client: TestClient, alice: Headers) -> None:
    done = run("reset-password", "alice", "--yes", "--stdin", stdin=f"{NEW}\n")

    assert (done.returncode, done.stdout) == (0, "")
    assert sign_in(client, NEW)


def test_a_reset_password_revokes_all_tokens(run: Run, client: TestClient, alice: Headers) -> None:
    run("reset-password", "alice", "--yes")

    eventually(lambda: is_revoked(client, alice))


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "at least 8"),
        ("", "at least 8"),
        ("password1", "most common"),
        ("aliceinthewood", "username"),
        ("a bell \a and more", ""),
    ],
)
def test_a_password_that_no_user_could_choose_is_refused(
    run: Run, client: TestClient, password: str, reason: str
) -> None:
    client.post("/register", json={"username": "aliceinthewood", "password": PASSWORD})

    refused = run("reset-password", "aliceinthewood", "--yes", "--stdin", stdin=f"{password}\n")

    assert (refused.returncode, refused.stdout) == (1, "")
    assert reason in refused.stderr
    assert not password or password == "aliceinthewood" or password not in refused.stderr
    credentials = {"username": "aliceinthewood", "password": PASSWORD}
    assert client.post("/login", json=credentials).status_code == 200


def test_revoked_tokens_are_refused_and_new_ones_are_not(
    run: Run, client: TestClient, alice: Headers
) -> None:
    assert run("revoke", "alice", "--yes").returncode == 0

    eventually(lambda: is_revoked(client, alice))
    again = sign_in(client)
    assert again
    assert not is_revoked(client, again)


@pytest.mark.parametrize("command", ["delete", "reset-password", "revoke"])
class TestEachCommand:
    def test_logs_what_it_did_without_a_password(self, run: Run, alice: Headers, command: str) -> None:
        done = run(command, "alice", "--yes")

        assert "alice" in done.stderr
        assert not done.stdout or done.stdout.strip() not in done.stderr

    def test_does_nothing_unless_it_is_confirmed(
        self, run: Run, client: TestClient, alice: Headers, command: str
    ) -> None:
        for response in ("", "\n", "no\n", "y\n"):
            refused = run(command, "alice", stdin=response)

            assert (refused.returncode, refused.stdout) == (1, "")
            assert "nothing was done" in refused.stderr
        assert sign_in(client)
        assert not is_revoked(client, alice)

    def test_is_confirmed_by_yes(self, run: Run, alice: Headers, command: str) -> None:
        assert run(command, "alice", stdin="yes\n").returncode == 0

    def test_says_that_there_is_no_such_user(self, run: Run, store: UsersStore, command: str) -> None:
        unknown = run(command, "nobody_here", "--yes")

        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr.endswith("There is no user nobody_here.\n")

    def test_says_that_postgresql_is_unavailable(self, run: Run, command: str) -> None:
        unavailable = run(command, "alice", "--yes", DB_PORT=str(server_processes.free_port()))

        assert unavailable.returncode == 1
        assert "Traceback" not in unavailable.stderr
        assert unavailable.stderr.splitlines()[-1].startswith("PostgreSQL is unavailable: ")

    def test_creates_no_database(self, run: Run, store: UsersStore, command: str) -> None:
        assert run(command, "alice", "--yes", USERS_DB_NAME="test_misspelled").returncode == 1
        databases = text("SELECT datname FROM pg_database WHERE datname = 'test_misspelled'")
        assert store._database.rows(databases, {}) == []


@pytest.mark.parametrize(
    ("arguments", "variables", "code"),
    [
        ([], {}, 2),
        (["revoke"], {}, 2),
        (["revoke", "a b"], {}, 2),
        (["reset-password", "alice", "--stdin"], {}, 2),
        (["revoke", "alice"], {"DB_PORT": "x"}, 3),
    ],
)
def test_what_makes_no_sense_is_refused(
    run: Run, arguments: list[str], variables: dict[str, str], code: int
) -> None:
    assert run(*arguments, **variables).returncode == code
