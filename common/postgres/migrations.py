"""Alembic's migrations, run by the service itself. Loaded only when there are some to run."""

from pathlib import Path

from alembic import command, context
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from common.postgres.schema import SchemaNotReady


def upgrade(connection: Connection, migrations: Path, version_table: str) -> None:
    """Apply those that are missing. Raises SchemaNotReady when the schema is newer than this code."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=version_table)
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise SchemaNotReady(f"cannot prepare the database: {exc}") from exc


def run() -> None:
    """What a service's `migrations/env.py` does."""
    config = context.config
    context.configure(config.attributes["connection"], version_table=config.attributes["version_table"])
    with context.begin_transaction():
        context.run_migrations()
