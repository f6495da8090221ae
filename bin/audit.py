"""Known vulnerabilities of the pinned packages. Fails on what is found, not where nobody can be asked."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

# Findings that do not concern this project, and why.
ACCEPTED = {
    "CVE-2024-23342": "ecdsa tells of its key by its time. python-jose installs it; nothing signs with it.",
}

Dependency = dict[str, Any]


def main() -> None:
    dependencies = _ask()
    if missing := unchecked(dependencies):
        print(f"audit: NOT CHECKED, for nobody here could be asked about {missing}", file=sys.stderr)
    if found := findings(dependencies):
        sys.exit("\n".join(["audit: known vulnerabilities", *found]))


def unchecked(dependencies: list[Dependency]) -> str:
    """The packages of which nothing is known, not even that there is nothing."""
    names = [one["name"] for one in dependencies if "skip_reason" in one]
    return "any package" if len(names) == len(dependencies) else ", ".join(names)


def findings(dependencies: list[Dependency]) -> list[str]:
    return [f"{one['name']} {one['version']}: {_told(one)}" for one in dependencies if one.get("vulns")]


def _ask() -> list[Dependency]:
    """What pip-audit says of each package; nothing if it cannot say anything."""
    command = [str(Path(sys.executable).parent / "pip-audit"), "--format=json", "--progress-spinner=off"]
    command += ["--disable-pip", "--require-hashes"]
    command += [f"--requirement=requirements-{group}.txt" for group in ("dev", "tools")]
    command += [f"--ignore-vuln={name}" for name in ACCEPTED]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies: list[Dependency] = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        return []
    return dependencies


def _told(dependency: Dependency) -> str:
    return "; ".join(
        f"{one['id']}, mended in {' or '.join(one['fix_versions']) or 'no version yet'}"
        for one in dependency["vulns"]
    )


if __name__ == "__main__":
    main()
