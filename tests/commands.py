"""A command of the project, run in this process: a start of Python takes longer than all that it does."""

import subprocess
import sys
from collections.abc import Callable

import pytest


def run_here(
    main: Callable[[], None],
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> "subprocess.CompletedProcess[str]":
    """What it says, and the status that it ends with."""
    monkeypatch.setattr(sys, "argv", ["", *arguments])
    code: str | int | None = 0
    try:
        main()
    except SystemExit as exc:
        code = exc.code
    said, complaint = capsys.readouterr()
    if isinstance(code, str):  # as Python does
        code, complaint = 1, f"{complaint}{code}\n"
    return subprocess.CompletedProcess(arguments, code or 0, said, complaint)
