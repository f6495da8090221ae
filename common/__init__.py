"""The floor that every service stands on; it knows none of them."""

import sys

__version__ = "1.0.0"

# Where rich happens to be installed, httpx loads its command line: 7 MB and a tenth of a second a process.
sys.modules["httpx._main"] = None  # type: ignore[assignment]  # the documented way to say: there is none
