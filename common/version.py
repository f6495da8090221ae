"""The version of the suite."""

VERSION = "1.0.0"
