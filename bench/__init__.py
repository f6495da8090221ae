"""Measurements that anyone can repeat; each is a command, and prints ratios from one run."""

import sys
from pathlib import Path

# bin's modules are neighbours of its scripts and no package; server_processes.py is needed here as well.
sys.path.insert(0, str(Path(__file__).parent.parent / "bin"))
