"""Failures of stores that are more than one process, under load: `bin/try NAME` runs one."""
