"""Memory that a process has used, and needs no more."""

import ctypes


def return_unused() -> None:
    """Give the system back what the C library keeps: after importing, some megabytes. Only glibc can."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
