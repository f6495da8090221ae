"""How the Procfile is read, and its processes started and stopped."""

import os
import re
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
    text = "users: n=${PS:-1}; PORT=$((5100 + ${n##*.})) exec python -m users_service.app\n"

    [line] = suite.procfile(text)

    assert (line.name, line.port, line.source) == ("users", 5100, "users_service")


def test_a_line_may_be_any_command() -> None:
    [line] = suite.procfile("cache: FOO=1 redis-server --port 1\n")

    assert (line.port, line.command, line.source) == (None, "FOO=1 redis-server --port 1", None)


def test_a_process_gets_its_port_and_variables_and_the_projects_python(log: Path) -> None:
    [line] = suite.procfile('a: n=1; PORT=$((1 + $n)) echo "$PORT $DB_PORT"; which python\n')

    line.start(log, {"DB_PORT": "7"}, port=9).wait()

    assert log.read_text().split() == ["9", "7", f"{Path(sys.executable).parent}/python"]


def test_a_process_that_ignores_its_end_is_killed(log: Path) -> None:
    process = suite.start([sys.executable, "-c", f"{IGNORES_SIGTERM}; time.sleep(60)"], log, {})
    eventually(lambda: log.read_text() == "on\n")

    suite.stop([process], seconds=0.1)

    assert process.returncode == -9


HONCHO = [sys.executable, "-m", "honcho", "-d", str(suite.ROOT)]


def _environment(**variables: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables


@pytest.fixture
def honcho(tmp_path: Path) -> Iterator[int]:
    """The registry under honcho, on a port that is free; the port."""
    port = server_processes.free_port()
    lines = tmp_path / "Procfile"
    lines.write_text((suite.ROOT / "Procfile").read_text().replace("8006", str(port)))
    process = subprocess.Popen(
        [*HONCHO, "-e", os.devnull, "-f", lines, "start", "registry"],
        env=_environment(),
        stdout=subprocess.DEVNULL,
    )
    yield port
    process.terminate()
    process.wait()


@pytest.mark.starts
def test_the_procfile_runs_under_honcho_too(honcho: int) -> None:
    eventually(lambda: not server_processes.is_free(honcho))


DOCUMENTED_PORTS = {
    "registry": 8006,
    "users": 5100,
    "timelines": 5200,
    "likes": 8004,
    "polls": 8005,
    "gateway": 8080,
    "timelines_worker": 5300,
    "likes_validation_worker": 8104,
    "likes_notification_worker": 8204,
}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The Procfile, with lines that say their port instead of listening on it."""
    saying = tmp_path / "Procfile"
    text = (suite.ROOT / "Procfile").read_text()
    saying.write_text(re.sub("exec .+", "sh -c 'echo port=$PORT; exec sleep 60'", text))
    return saying


def _ports_under_honcho(lines: Path, *options: str, dotenv: str = "", **variables: str) -> list[int]:
    (lines.parent / ".env").write_text(dotenv)
    command = [*HONCHO, "-e", lines.parent / ".env", "-f", lines, "start", *options, *DOCUMENTED_PORTS]
    with subprocess.Popen(command, env=_environment(**variables), stdout=subprocess.PIPE) as process:
        assert process.stdout
        said: list[int] = []
        for line in process.stdout:
            said += map(int, re.findall(rb"port=(\d+)", line))
            if len(said) == len(DOCUMENTED_PORTS) + 2 * ("users=3" in options):
                process.terminate()
        return sorted(said)


@pytest.mark.parametrize("port", ["", "8080", "5000", "1"])
def test_a_port_in_the_environment_or_in_dotenv_shifts_no_line_under_honcho(lines: Path, port: str) -> None:
    environment = {"PORT": port} if port else {}

    from_environment = _ports_under_honcho(lines, **environment)
    from_dotenv = _ports_under_honcho(lines, dotenv=f"PORT={port}\n" if port else "")

    assert from_environment == from_dotenv == sorted(DOCUMENTED_PORTS.values())


def test_further_instances_have_ports_of_their_own_under_honcho(lines: Path) -> None:
    ports = _ports_under_honcho(lines, "-c", "users=3", dotenv="PORT=8080\n")

    assert ports == sorted([*DOCUMENTED_PORTS.values(), 5110, 5120])


@pytest.mark.parametrize(("instance", "port"), [("users.1", 5100), ("users.3", 5120), (None, 5100)])
def test_foreman_says_the_instance_in_ps(lines: Path, instance: str | None, port: int) -> None:
    [line] = re.findall("^users: (.+)$", lines.read_text().replace("; exec sleep 60", ""), re.MULTILINE)
    given = {"PORT": "8280"} | ({"PS": instance} if instance else {})

    said = subprocess.check_output(["/bin/sh", "-c", line], env=_environment(**given))

    assert said == b"port=%d\n" % port
