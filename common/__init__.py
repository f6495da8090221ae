"""The floor that every service stands on; it knows none of them."""

__version__ = "1.0.0"
