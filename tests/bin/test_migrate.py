"""Migrations against tables.py, and the migration that bin/migrate writes of a difference."""

import shutil
from pathlib import Path

import migrate
import pytest
from sqlalchemy import URL, Column, Index, Integer, MetaData, Table


def url(port: int, name: str) -> URL:
    return URL.create("postgresql+psycopg2", "postgres", "postgres", "127.0.0.1", port, name)


@pytest.mark.parametrize("service", migrate.SERVICES)
def test_the_migrations_make_what_tables_says(service: str, postgres: int) -> None:
    migrations = migrate.ROOT / f"{service}_service" / "migrations"

    changes = migrate.compare(url(postgres, f"migrated_{service}"), migrations, migrate.metadata(service))

    found = changes.upgrade_ops.as_diffs()
    assert not found, f'{service}_service/tables.py has changed: run bin/migrate {service} "what has changed"'


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A copy of the migrations of users, to which one may be added."""
    folder = tmp_path / "users_service" / "migrations"
    shutil.copytree(migrate.ROOT / "users_service" / "migrations", folder)
    return folder


@pytest.fixture
def changed() -> MetaData:
    """The tables of users, with a column and an index more."""
    tables = MetaData()
    for table in migrate.metadata("users").tables.values():
        table.to_metadata(tables)
    users: Table = tables.tables["users"]
    users.append_column(Column("shoe_size", Integer, nullable=False, server_default="0"))
    Index("users_shoe_size", users.c.shoe_size)
    return tables


@pytest.fixture
def written(postgres: int, migrations: Path, changed: MetaData) -> Path:
    return migrate.write(
        migrate.compare(url(postgres, "to_migrate"), migrations, changed), migrations, "add shoe size"
    )


def test_a_migration_is_named_by_the_next_number_and_its_title(written: Path) -> None:
    previous = max(path.name for path in (migrate.ROOT / "users_service/migrations/versions").glob("*.py"))[
        :4
    ]

    assert written.name == f"{int(previous) + 1:04}_add_shoe_size.py"
    assert written.read_text().startswith('"""Add shoe size."""\n')
    assert f'down_revision = "{previous}"' in written.read_text()


def test_a_written_migration_makes_what_tables_says(
    postgres: int, migrations: Path, changed: MetaData, written: Path
) -> None:
    changes = migrate.compare(url(postgres, "after_migrating"), migrations, changed)

    assert changes.upgrade_ops.as_diffs() == []
