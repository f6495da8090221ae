"""What starts the suite's processes, to compare with one another: the Procfile, and what deploys it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINES = re.findall(r"^(\w+):.* exec (.+)$", (ROOT / "Procfile").read_text(), flags=re.MULTILINE)
# The command of each process by its name: "users" is ["python", "-m", "users_service.app"].
COMMANDS = {name: command.split() for name, command in _LINES}
