"""bin/dev on a copy of the project: its first screen, its end, and its restarts."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import server_processes
from suite import ROOT, locations, procfile

from tests import plain_http
from tests.polling import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.kills

NAMES = ("registry", "polls", "gateway")
CLOCK = re.compile(r"\d\d:\d\d:\d\d")


class Dev:
    """bin/dev in a copy of the project, on free ports."""

    def __init__(self, project: Path, *arguments: str, lines: str = "", **variables: str) -> None:
        self.project = project
        self.ports = self._copy(lines)
        self._output = (project / "output").open("wb")
        environment = os.environ | variables
        environment["REGISTRY_URL"] = f"http://127.0.0.1:{self.ports['registry']}"
        self.process = subprocess.Popen(
            [sys.executable, "bin/dev.py", *arguments],
            cwd=project,
            env=environment,
            stdout=self._output,
            stderr=self._output,
        )

    @property
    def output(self) -> str:
        return (self.project / "output").read_text()

    @property
    def banner(self) -> list[str]:
        """The lines to paste."""
        _, _, rest = self.output.partition("Or paste this:\n\n")
        return rest.partition("\n\n")[0].splitlines()

    def log(self, name: str) -> str:
        return (self.project / ".data" / "log" / f"{name}.log").read_text()

    def interrupt(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.interrupt()
        self._output.close()

    def _copy(self, chosen: str) -> dict[str, int]:
        for package in [*ROOT.glob("*_service"), ROOT / "common", ROOT / "bin"]:
            shutil.copytree(package, self.project / package.name)
        shutil.copy2(ROOT / "gateway.py", self.project)
        ports = {line.name: server_processes.free_port() for line in procfile() if line.port}
        lines = [
            re.sub(r"\d+ \+", f"{ports.get(line.partition(':')[0])} +", line)
            for line in (ROOT / "Procfile").read_text().splitlines()
            if not chosen or line.partition(":")[0] in chosen.split()
        ]
        (self.project / "Procfile").write_text("\n".join(lines) + "\n")
        return ports


@pytest.fixture(scope="module")
def mail(data: Path) -> Iterator[server_processes.Server]:
    server = server_processes.mail(data / "dev-mail", server_processes.free_port())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def variables(
    postgres: int, redis_port: int, dynamodb_port: int, mail: server_processes.Server
) -> dict[str, str]:
    """Where the servers are. Beanstalkd is bin/dev's own: other tests' workers would take its jobs."""
    ports = {
        "postgres": postgres,
        "redis": redis_port,
        "beanstalkd": server_processes.free_port(),
        "dynamodb": dynamodb_port,
        "mail": mail.port,
    }
    return locations(ports) | {
        "USERS_DB_NAME": "dev_users",
        "TIMELINES_DB_NAME": "dev_timelines",
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/7",
        "DYNAMODB_POLLS_TABLE": "DevPolls",
        "SMTP_HOST": server_processes.HOST,
    }


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> Iterator[Dev]:
    project = tmp_path_factory.mktemp("dev")
    (project / ".env").write_text("DB_PASSWROD=secret\nLOG_LEVL=debug\n")
    dev = Dev(project, **variables)
    try:
        eventually(lambda: "Microblog is up" in dev.output)
        yield dev
    finally:
        dev.close()


def test_the_banner_is_within_the_first_screen(dev: Dev) -> None:
    as_usual = dev.output.replace(str(dev.ports["gateway"]), "8080")
    lines = [line for line in as_usual.splitlines() if "WARNING" not in line]
    rows = sum(max(math.ceil(len(line) / 80), 1) for line in lines)

    # One more for the fifth backing server, for mail, and one for the cursor.
    assert rows + 2 <= 24


def test_a_misspelled_variable_is_shown_once(dev: Dev) -> None:
    shown = [line for line in dev.output.splitlines() if "nothing reads" in line]

    assert sorted(re.findall(r"reads (\w+): is (\w+) meant", "\n".join(shown))) == [
        ("DB_PASSWROD", "DB_PASSWORD"),
        ("LOG_LEVL", "LOG_LEVEL"),
    ]


def test_what_it_is_safe_for_is_said_once_and_quietly(dev: Dev) -> None:
    assert len(re.findall("on this machine only", dev.output, flags=re.IGNORECASE)) == 1
    assert "SAFE ON THIS MACHINE ONLY" in dev.log("users")


def test_the_lines_work_as_often_as_they_are_pasted_and_end_in_a_mail(dev: Dev, data: Path) -> None:
    for count in (1, 2):
        answers = _paste(dev)
        eventually(lambda: len(_mails(data)) == count)  # noqa: B023  called at once

        assert len(answers) == 3
        assert '"count":1' in answers[-1]
        assert all("To: alice@example.com" in mail.read_text() for mail in _mails(data))


def _paste(dev: Dev) -> list[str]:
    command = ["bash", "-c", "\n".join(dev.banner)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def _mails(data: Path) -> list[Path]:
    return list((data / "dev-mail" / "new").iterdir())


def test_requests_are_in_the_file_and_not_on_the_terminal(dev: Dev) -> None:
    plain_http.get(f"http://127.0.0.1:{dev.ports['gateway']}/posts")

    eventually(lambda: " access: GET /posts 200 " in dev.log("gateway"))
    assert "access:" not in dev.output


def test_each_line_has_at_most_one_clock(dev: Dev) -> None:
    assert [line for line in dev.output.splitlines() if len(CLOCK.findall(line)) > 1] == []


@contextmanager
def _some_of_it(project: Path, variables: dict[str, str], *arguments: str) -> Iterator[Dev]:
    """bin/dev with three of the processes."""
    dev = Dev(project, *arguments, lines="registry polls gateway", **variables)
    try:
        eventually(lambda: _is_registered(dev, "polls"))
        yield dev
    finally:
        dev.close()


@pytest.fixture(scope="module")
def reloading(tmp_path_factory: pytest.TempPathFactory, variables: dict[str, str]) -> Iterator[Dev]:
    with _some_of_it(tmp_path_factory.mktemp("reloading"), variables, "--reload") as dev:
        eventually(lambda: all(_starts(dev, name) for name in NAMES))
        yield dev


def _instance(dev: Dev, service: str) -> str | None:
    try:
        answer = plain_http.get(f"http://127.0.0.1:{dev.ports['registry']}/services/{service}")
    except httpx2.TransportError:
        return None
    return answer.text if answer.status_code == 200 and answer.json() else None


def _is_registered(dev: Dev, service: str) -> bool:
    return _instance(dev, service) is not None


@pytest.mark.parametrize("arguments", [[], ["--reload"]])
def test_ctrl_c_ends_it_without_a_word(
    tmp_path: Path, variables: dict[str, str], arguments: list[str]
) -> None:
    with _some_of_it(tmp_path, variables, *arguments) as dev:
        said = dev.output

        assert dev.interrupt() == 0
        assert dev.output == said
        assert all(server_processes.is_free(port) for port in dev.ports.values())


def test_a_process_that_ends_by_itself_ends_the_suite(tmp_path: Path, variables: dict[str, str]) -> None:
    with _some_of_it(tmp_path, variables) as dev:
        [pid] = re.findall(r"Started server process \[(\d+)\]", dev.log("polls"))
        os.kill(int(pid), signal.SIGKILL)

        assert dev.process.wait(PATIENCE_SECONDS) == 1
        assert "polls has stopped by itself" in dev.output


def _starts(dev: Dev, name: str) -> int:
    return dev.log(name).count("Application startup complete")


def _change(file: Path, old: str, new: str) -> None:
    """Replace the file, as editors do."""
    changed = file.with_suffix(".new")
    changed.write_text(file.read_text().replace(old, new, 1))
    changed.replace(file)


@pytest.mark.parametrize(
    ("file", "restarted"),
    [
        ("polls_service/models.py", {"polls"}),
        ("gateway.py", {"gateway"}),
        ("common/telemetry/logging.py", {"registry", "polls", "gateway"}),
    ],
)
def test_changed_code_restarts_the_processes_that_run_it(
    reloading: Dev, file: str, restarted: set[str]
) -> None:
    before = {name: _starts(reloading, name) for name in NAMES}
    _change(reloading.project / file, '"""', '"""Changed. ')

    eventually(lambda: all(_starts(reloading, name) > before[name] for name in restarted))
    assert {name for name in NAMES if _starts(reloading, name) > before[name]} == restarted


def test_a_syntax_error_waits_for_the_next_change(reloading: Dev) -> None:
    models = reloading.project / "polls_service" / "models.py"
    _change(models, '"""', 'def """')
    eventually(lambda: "polls has stopped by itself" in reloading.output)
    assert "SyntaxError" in reloading.output

    before = _starts(reloading, "polls")
    _change(models, 'def """', '"""')
    eventually(lambda: _starts(reloading, "polls") > before)
