"""Alembic's way in."""

from common.postgres import run_migrations

run_migrations()
