"""Alembic's way in."""

from common import migrations

migrations.run()
