"""What a test of an upgrade begins with: a database as the first migration leaves it."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import URL, MetaData

from common.postgres.database import Database

numbers = count()


@contextmanager
def new_database(port: int) -> Iterator[Database]:
    """A database that is not there yet, on the PostgreSQL at this port."""
    name = f"upgraded_{next(numbers)}"
    url = URL.create("postgresql+psycopg2", "postgres", "postgres", "localhost", port, name)
    with closing(Database.connect(url, MetaData())) as database:
        yield database


def prepare_last_version(database: Database, migrations: Path, folder: Path) -> None:
    """Run the first of a service's migrations alone, from a copy in this folder."""
    versions = folder / migrations.parent.name / "migrations" / "versions"
    versions.mkdir(parents=True)
    shutil.copy(migrations / "env.py", versions.parent)
    shutil.copy(next(migrations.glob("versions/0001_*")), versions)
    database.prepare(versions.parent)
