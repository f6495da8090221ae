"""How the Procfile is read, and its processes started and stopped."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import server_processes
import suite

from tests.polling import eventually

IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True)"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_line_has_its_default_port_and_what_it_runs() -> None:
    text = "users: PORT=$((5100 + PORT % 100 * 10)) exec python -m users_service.app\n"

    [line] = suite.procfile(text)

    assert (line.name, line.port, line.source) == ("users", 5100, "users_service")


def test_a_line_may_be_any_command() -> None:
    [line] = suite.procfile("cache: FOO=1 redis-server --port 1\n")

    assert (line.port, line.command, line.source) == (None, "FOO=1 redis-server --port 1", None)


def test_a_process_gets_its_port_and_variables_and_the_projects_python(log: Path) -> None:
    [line] = suite.procfile('a: PORT=$((1 + PORT % 100)) echo "$PORT $DB_PORT"; which python\n')

    line.start(log, {"DB_PORT": "7"}, port=9).wait()

    assert log.read_text().split() == ["9", "7", f"{Path(sys.executable).parent}/python"]


def test_a_process_that_ignores_its_end_is_killed(log: Path) -> None:
    process = suite.start([sys.executable, "-c", f"{IGNORES_SIGTERM}; time.sleep(60)"], log, {})
    eventually(lambda: log.read_text() == "on\n")

    suite.stop([process], seconds=0.1)

    assert process.returncode == -9


@pytest.fixture
def honcho() -> Iterator[int]:
    """The registry under honcho, as an instance of a number of its own; its port."""
    offset = next(n for n in range(20, 99) if server_processes.is_free(8006 + 10 * n))
    command = ["-m", "honcho", "-e", os.devnull, "start", "-p", str(5000 + offset), "registry"]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=suite.ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    yield 8006 + 10 * offset
    process.terminate()
    process.wait()


@pytest.mark.starts
def test_the_procfile_runs_under_honcho_too(honcho: int) -> None:
    eventually(lambda: not server_processes.is_free(honcho))
