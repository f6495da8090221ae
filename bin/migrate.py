"""Writes a migration of what has changed in a service's tables.py: Alembic compares it with a database."""

import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import server_processes
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations.ops import MigrationScript
from sqlalchemy import URL, MetaData

from common.postgres.database import Database

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("users", "timelines")
USAGE = f'usage: bin/migrate {"|".join(SERVICES)} "add location"'
HINT = """Read it. Alembic takes a renamed column for one dropped and one added. A new column needs
a server_default or nullable=True: rows are there already, and old instances insert more while you upgrade."""
MIGRATION = '''"""{title}."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{previous}"


def upgrade() -> None:
    # All requests wait behind a lock that waits: rather give up, and let the service try again.
    op.execute("SET LOCAL lock_timeout = '500ms'")
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in SERVICES:
        sys.exit(USAGE)
    service, title = sys.argv[1:]
    migrations = ROOT / f"{service}_service" / "migrations"
    with _server() as url:
        changes = compare(url, migrations, metadata(service))
    if changes.upgrade_ops is None or changes.upgrade_ops.is_empty():
        sys.exit(f"migrate: the migrations already make what {service}_service/tables.py says")
    written = write(changes, migrations, title)
    print(f"{written.relative_to(ROOT)} is written.\n{HINT}")


def metadata(service: str) -> MetaData:
    found: MetaData = importlib.import_module(f"{service}_service.tables").metadata
    return found


def compare(url: URL, migrations: Path, tables: MetaData) -> MigrationScript:
    """What lacks between all migrations, applied to this database, and the tables."""
    database = Database.connect(url, MetaData())
    try:
        database.prepare(migrations)
        with database.autocommit() as connection:
            options = {"version_table": f"{migrations.parent.name}_version", "compare_server_default": True}
            return produce_migrations(MigrationContext.configure(connection, opts=options), tables)
    finally:
        database.close()


def write(changes: MigrationScript, migrations: Path, title: str) -> Path:
    """As the next migration, in a file like `0002_add_location.py`."""
    assert changes.upgrade_ops
    assert changes.downgrade_ops
    previous = max(path.name for path in (migrations / "versions").glob("*.py")).partition("_")[0]
    revision = f"{int(previous) + 1:04}"
    slug = re.sub(r"\W+", "_", title.lower()).strip("_")
    file = migrations / "versions" / f"{revision}_{slug}.py"
    source = MIGRATION.format(
        title=title[:1].upper() + title[1:],
        revision=revision,
        previous=previous,
        upgrade=_without_comments(render_python_code(changes.upgrade_ops)),
        downgrade=_without_comments(render_python_code(changes.downgrade_ops)),
    )
    file.write_text(source)
    subprocess.run([Path(sys.prefix) / "bin" / "ruff", "format", "-q", file], check=True)
    return file


def _without_comments(code: str) -> str:
    lines = [line for line in code.splitlines() if not line.lstrip().startswith("# ###")]
    return "\n".join(lines).strip()


@contextmanager
def _server() -> Iterator[URL]:
    with tempfile.TemporaryDirectory(prefix="microblog-migrate-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL's user, which is not root, has to reach it
        server = server_processes.postgres(
            Path(folder) / "postgres", server_processes.free_port(), durable=False
        )
        try:
            yield URL.create(
                "postgresql+psycopg2",
                "postgres",
                "postgres",
                server_processes.HOST,
                server.port,
                "microblog_migrate",
            )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
