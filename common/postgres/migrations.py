"""Alembic's migrations, run by the service itself. Loaded only when there are some to run."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from alembic import command, context, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.util import CommandError
from sqlalchemy import Connection

from common.postgres.schema import SchemaNotReady


def upgrade(connection: Connection, migrations: Path, version_table: str) -> list[str]:
    """Apply those that are missing, and return them. Raises SchemaNotReady when the schema is newer.

    Each is a transaction, but for those that are not: see `autocommit_block` of Alembic.
    """
    applied: list[str] = []
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=version_table, applied=applied)
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise SchemaNotReady(f"cannot prepare the database: {exc}") from exc
    return applied


def build_index(name: str, table: str, columns: list[Any], **options: Any) -> None:
    """Build an index while the table is in use; inside an `autocommit_block` only.

    One that broke off before is there, but PostgreSQL calls it invalid: it is built anew.
    """
    op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
    op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def run() -> None:
    """What a service's `migrations/env.py` does."""
    given = context.config.attributes

    def note(
        ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
    ) -> None:
        given["applied"].append(step.up_revision_id)

    context.configure(
        given["connection"],
        version_table=given["version_table"],
        on_version_apply=note,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
