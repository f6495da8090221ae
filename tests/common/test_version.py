"""Which commit runs, as git's own files say it."""

import re
from pathlib import Path

import pytest

from common.version import RELEASE, VERSION, describe

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()


ONE, TWO = "1" * 40, "2" * 40


@pytest.fixture
def git(tmp_path: Path) -> Path:
    """The .git of a clone that is on the branch `main`, as gitrepository-layout(5) has it."""
    folder = tmp_path / ".git"
    (folder / "refs" / "heads").mkdir(parents=True)
    (folder / "HEAD").write_text("ref: refs/heads/main\n")
    return folder


def test_a_branch_is_known_by_its_commit(git: Path) -> None:
    (git / "refs/heads/main").write_text(f"{ONE}\n")

    assert describe(git.parent) == f"{RELEASE}+1111111"


def test_a_detached_head_is_known_by_its_commit(git: Path) -> None:
    (git / "HEAD").write_text(f"{ONE}\n")

    assert describe(git.parent) == f"{RELEASE}+1111111"


def test_a_branch_whose_refs_are_packed_is_known_by_its_commit(git: Path) -> None:
    header = "# pack-refs with: peeled fully-peeled sorted \n"
    (git / "packed-refs").write_text(f"{header}{TWO} refs/heads/main2\n{ONE} refs/heads/main\n^{TWO}\n")

    assert describe(git.parent) == f"{RELEASE}+1111111"


def test_a_branch_without_a_commit_is_the_release(git: Path) -> None:
    assert describe(git.parent) == RELEASE


def test_a_worktree_is_known_by_its_own_commit(git: Path) -> None:
    own, worktree = git / "worktrees" / "other", git.parent / "other"
    own.mkdir(parents=True)
    worktree.mkdir()
    (worktree / ".git").write_text(f"gitdir: {own}\n")
    (own / "commondir").write_text("../..\n")
    (own / "HEAD").write_text("ref: refs/heads/other\n")
    (git / "refs/heads/main").write_text(f"{ONE}\n")
    (git / "refs/heads/other").write_text(f"{TWO}\n")

    assert describe(worktree) == f"{RELEASE}+2222222"


def test_without_git_a_file_says_the_commit(tmp_path: Path) -> None:
    (tmp_path / "COMMIT").write_text("0123456789abcdef0123456789abcdef01234567\n")

    assert describe(tmp_path) == f"{RELEASE}+0123456"


@pytest.mark.parametrize("commit", ["", "unknown", "$Format:%H$", "012345\n6789"])
def test_what_is_no_commit_is_left_out(tmp_path: Path, commit: str) -> None:
    (tmp_path / "COMMIT").write_text(commit)

    assert describe(tmp_path) == RELEASE


def test_the_version_is_a_semantic_one() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(-dev)?(\+[0-9a-f]{7})?", VERSION)


def test_the_changelog_begins_with_this_release() -> None:
    newest = re.search(r"^## \[(.*)\]", CHANGELOG, flags=re.MULTILINE)
    wanted = "Unreleased" if RELEASE.endswith("-dev") else RELEASE

    assert newest.group(1) == wanted, (
        "let CHANGELOG.md's first section be that of common/version.py's RELEASE"
    )
