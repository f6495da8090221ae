"""What the import linter cannot see."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tables import require_rows

ROOT = Path(__file__).parent.parent
SERVICES = ["registry_service", "users_service", "timelines_service", "likes_service", "polls_service"]
ENTRY_POINTS = {"app", "workers"}


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _imports(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_the_gateway_knows_no_service() -> None:
    packages = {name.partition(".")[0] for name in _imports(ROOT / "gateway.py")}

    assert packages.isdisjoint(SERVICES), "gateway.py imports a service: it should only call it, by HTTP"


@pytest.mark.parametrize("source", _sources("common"), ids=lambda path: path.name)
def test_common_names_no_service(source: Path) -> None:
    named = re.search("|".join(SERVICES), source.read_text())
    assert not named, f"common names {named[0]}: let that service hand in what is its own"


@pytest.mark.parametrize(
    "source",
    [path for path in _sources(*SERVICES, "common") if path.stem != "settings"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_only_settings_read_the_environment(source: Path) -> None:
    found = re.search(r"environ\b|getenv", source.read_text())
    assert not found, "make it a field of a settings class, and hand the settings in"


@pytest.mark.parametrize(
    "source", _sources(*SERVICES, "common"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_module_is_a_grab_bag(source: Path) -> None:
    is_noun = source.stem not in {"utils", "helpers", "misc", "base", "manager"}
    assert is_noun, f"name {source.name} after the one thing that it is about"


@pytest.mark.starts
def test_importing_does_no_work() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in _sources(*SERVICES, "common")
        if path.stem not in ENTRY_POINTS | {"__init__"} and "migrations" not in path.parts
    ]
    program = f"""
import importlib, logging, sys, threading
def audit(event, args):
    if event in {{"socket.connect", "socket.bind", "subprocess.Popen"}}:
        raise RuntimeError(event)
sys.addaudithook(audit)
for name in {modules!r}:
    importlib.import_module(name)
assert threading.active_count() == 1 and not logging.root.handlers
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def _modules_in(tree: str) -> set[str]:
    """The paths of the Python files that an indented tree names."""
    folders: list[str] = []
    modules = set()
    for line in tree.splitlines():
        indent, name = re.match(r"( *)(\S*)", line).groups()
        depth = len(indent) // 2
        if name.endswith("/"):
            folders[depth:] = [name]
        elif name.endswith(".py"):
            modules.add("".join([*folders[:depth], name]))
    return modules


def test_the_tree_in_the_documentation_names_every_module_of_common() -> None:
    tree = (ROOT / "docs/architecture.md").read_text().partition("```\n")[2].partition("```")[0]
    modules = {str(path.relative_to(ROOT)) for path in _sources("common") if path.stem != "__init__"}

    named = {module for module in _modules_in(tree) if module.startswith("common/")}
    require_rows("the tree in docs/architecture.md", named, modules)


@pytest.mark.starts
@pytest.mark.parametrize("module", ["timelines_service.workers", "likes_service.workers"])
def test_a_worker_does_not_load_what_serves(module: str) -> None:
    unwanted = {"fastapi", "uvicorn", "alembic", "opentelemetry.sdk"}
    program = f"import sys, {module}; print(*({unwanted} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert not done.stdout.strip(), f"{module} imports {done.stdout.strip()}, perhaps by what it imports"
