"""The version of the suite: its release, and the commit that runs."""

import re
from pathlib import Path

# That of the newest section of CHANGELOG.md. "-dev" until that section is released.
RELEASE = "1.1.0-dev"


def describe(root: Path) -> str:
    """`1.1.0-dev+8d0182e`; only the release where nothing says which commit it is.

    An image has no .git: its build can write the commit into a file COMMIT, beside README.md.
    """
    try:
        commit = _read(root / "COMMIT") or _checked_out(root / ".git")
    except (OSError, ValueError):
        commit = ""
    return f"{RELEASE}+{commit[:7]}" if re.fullmatch("[0-9a-f]{7,64}", commit) else RELEASE


def _checked_out(git: Path) -> str:
    """The commit that HEAD names, in the files that git keeps (gitrepository-layout)."""
    if git.is_file():  # a worktree's: "gitdir: <folder>"
        git = git.parent / git.read_text().removeprefix("gitdir: ").strip()
    head = _read(git / "HEAD")
    if not head.startswith("ref: "):
        return head
    ref = head.removeprefix("ref: ")
    shared = git / _read(git / "commondir")
    return _read(shared / ref) or _packed(shared / "packed-refs", ref)


def _packed(refs: Path, ref: str) -> str:
    lines = (line.partition(" ") for line in _read(refs).splitlines())
    return next((commit for commit, _, name in lines if name == ref), "")


def _read(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""


VERSION = describe(Path(__file__).parent.parent)
COMMIT = VERSION.partition("+")[2]
