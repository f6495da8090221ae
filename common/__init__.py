"""The floor that every service stands on; it knows none of them."""

import sys

__version__ = "1.0.0"

# httpx loads its command line where rich happens to be installed: 7 MB, and a tenth of a second a process.
sys.modules["httpx._main"] = None  # type: ignore[assignment]  # makes it an ImportError, which httpx expects
