"""Which of the project's packages and modules change while they are worked on."""

from pathlib import Path
from threading import Event, Lock, Thread

import watchfiles
from suite import ROOT


class SourceChanges:
    """Collects what changes, until `stop` is set."""

    def __init__(self, stop: Event) -> None:
        self._changed: set[str] = set()
        self._lock = Lock()
        packages = [path.parent for path in ROOT.glob("*/__init__.py")]
        # A folder is watched for gateway.py: a file that an editor replaces is watched no longer.
        for folders, is_recursive in ((packages, True), ([ROOT], False)):
            Thread(target=self._watch, args=(folders, is_recursive, stop), daemon=True).start()

    def take(self) -> set[str]:
        """The packages and modules that have changed since the last time."""
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    def _watch(self, folders: list[Path], is_recursive: bool, stop: Event) -> None:
        changes = watchfiles.watch(
            *folders,
            watch_filter=watchfiles.PythonFilter(),
            recursive=is_recursive,
            stop_event=stop,
            raise_interrupt=False,
        )
        for change in changes:
            with self._lock:
                self._changed |= {
                    Path(path).relative_to(ROOT).parts[0].removesuffix(".py") for _, path in change
                }
