"""Programs that a test needs, and that not every machine has."""

import pytest
import server_processes


def program(name: str) -> str:
    """Where a program is; without it, the test is skipped."""
    try:
        return server_processes._binary(name)
    except server_processes.NotStarted:
        pytest.skip(f"{name} is not installed")
