"""Alembic's way in."""

from common.postgres import migrations

migrations.run()
