"""What a person sees of the processes' logs, and what is in their files alone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from log_files import LogFiles

INFO = "16:40:01.123 INFO    uvicorn.error: Started server process [1] [-]"
REQUEST = "16:40:01.123 INFO    access: GET /posts 200 1.2 ms [-]"
WARNING = "16:40:01.123 WARNING common.jobs.queue: Beanstalkd is away [-]"
MISSPELLED = "16:40:01.123 WARNING common.settings: nothing reads DB_PASSWROD: is DB_PASSWORD meant? [-]"
SAFETY = "16:40:01.123 WARNING common.settings: SAFE ON THIS MACHINE ONLY! Beyond it: JWT_SECRET [-]"
JSON = '{{"time": "2026-11-25T16:40:01Z", "level": "{}", "logger": "{}", "message": "m"}}'


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def log_files(tmp_path: Path, said: list[str]) -> Iterator[Callable[..., LogFiles]]:
    with ExitStack() as stack:

        def make(shows_access: bool = False) -> LogFiles:
            return stack.enter_context(
                closing(LogFiles(tmp_path, ["users", "gateway"], shows_access, said.append))
            )

        yield make


def _write(logs: LogFiles, *lines: str, name: str = "users") -> None:
    with logs.paths[name].open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    logs.show()


@pytest.mark.parametrize(
    "line", [INFO, REQUEST, JSON.format("info", "uvicorn.error"), JSON.format("debug", "access")]
)
def test_what_is_as_it_should_be_is_in_the_file_alone(
    log_files: Callable[..., LogFiles], said: list[str], line: str
) -> None:
    logs = log_files()
    _write(logs, line)

    assert said == []
    assert logs.paths["users"].read_text() == f"{line}\n"


@pytest.mark.parametrize("line", [WARNING, JSON.format("error", "x"), "  File 'app.py', line 3"])
def test_what_is_amiss_is_shown_with_the_name_of_its_process(
    log_files: Callable[..., LogFiles], said: list[str], line: str
) -> None:
    _write(log_files(), INFO, line)

    assert said == [f"users   | {line}"]


@pytest.mark.parametrize("line", [REQUEST, JSON.format("info", "access")])
def test_requests_are_shown_to_those_who_ask_for_them(
    log_files: Callable[..., LogFiles], said: list[str], line: str
) -> None:
    _write(log_files(shows_access=True), INFO, line)

    assert said == [f"users   | {line}"]


def test_what_several_processes_say_of_their_settings_is_shown_once(
    log_files: Callable[..., LogFiles], said: list[str]
) -> None:
    logs = log_files()
    _write(logs, MISSPELLED)
    _write(logs, MISSPELLED.replace("123", "456"), name="gateway")

    assert said == [f"users   | {MISSPELLED}"]


def test_that_it_is_safe_on_this_machine_only_is_left_to_the_banner(
    log_files: Callable[..., LogFiles], said: list[str]
) -> None:
    logs = log_files()
    assert not logs.is_safe_here_only
    _write(logs, SAFETY)

    assert said == []
    assert logs.is_safe_here_only


def test_half_a_line_waits_for_the_other_half(log_files: Callable[..., LogFiles], said: list[str]) -> None:
    logs = log_files()
    for half in ("Trace", "back\n"):
        with logs.paths["users"].open("a") as file:
            file.write(half)
        logs.show()

    assert said == ["users   | Traceback"]


def test_every_start_empties_the_files(log_files: Callable[..., LogFiles]) -> None:
    _write(log_files(), WARNING)

    assert log_files().paths["users"].read_text() == ""
