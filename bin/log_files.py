"""The logs of the suite's processes: a file each, and what of them a person should see at once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# As common/telemetry/logging.py writes an event of no consequence, as text and as JSON.
_QUIET = re.compile(
    r'(?:\S+ (?:DEBUG|INFO) +|\{"time": "[^"]+", "level": "(?:debug|info)", "logger": ")(?P<logger>[\w.]+)'
)
# Several processes read the same settings, and each of them warns of the same.
_OF_SETTINGS = re.compile(r"common\.settings\W+(?P<warning>.+)")
SAFE_HERE_ONLY = "SAFE ON THIS MACHINE ONLY"


class LogFiles:
    """A file for each of these processes, empty at first; what it gets is shown by `say` where it matters.

    Shown are warnings, errors and what is no log event at all, such as a
    traceback of Python's own; requests with `shows_access` alone.
    """

    def __init__(
        self, folder: Path, names: list[str], shows_access: bool, say: Callable[[str], None]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = {name: folder / f"{name}.log" for name in names}
        for path in self.paths.values():
            path.write_bytes(b"")
        self._files: dict[str, BinaryIO] = {name: path.open("rb") for name, path in self.paths.items()}
        self._width = max(map(len, names))
        self._shows_access = shows_access
        self._say = say
        self._said: set[str] = set()
        self.is_safe_here_only = False

    def show(self) -> None:
        """Show what has come since the last time."""
        for name, file in self._files.items():
            for line in file:
                if not line.endswith(b"\n"):  # the rest is still to come
                    file.seek(-len(line), 1)
                    break
                text = line.decode(errors="replace").rstrip()
                if self._matters(text):
                    self._say(f"{name:{self._width}} | {text}")

    def close(self) -> None:
        self.show()
        for file in self._files.values():
            file.close()

    def _matters(self, line: str) -> bool:
        if quiet := _QUIET.match(line):
            return self._shows_access and quiet["logger"] == "access"
        if SAFE_HERE_ONLY in line:
            self.is_safe_here_only = True
            return False
        if repeated := _OF_SETTINGS.search(line):
            is_new = repeated["warning"] not in self._said
            self._said.add(repeated["warning"])
            return is_new
        return True
