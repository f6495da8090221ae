"""What the operator of a PostgreSQL does to it, past the suite."""

from contextlib import closing
from typing import Any

import psycopg2
import server_processes


def operate(port: int, statement: str, database: str = "postgres") -> list[Any]:
    """Run a statement outside a transaction, on a read-only server as well; the rows that it returns."""
    with closing(
        psycopg2.connect(
            host=server_processes.HOST, port=port, user="postgres", password="postgres",
            dbname=database, options="-c default_transaction_read_only=off",
        )
    ) as connection:  # fmt: skip
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def configure(port: int, change: str) -> None:
    """Change a setting of the whole server: `SET name = value` or `RESET name`."""
    operate(port, f"ALTER SYSTEM {change}")
    operate(port, "SELECT pg_reload_conf()")


def end_sessions(port: int, database: str | None = None) -> None:
    """End the session of each client, or of those in this database only."""
    clients = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    if database:
        clients += f" AND datname = '{database}'"
    operate(port, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {clients}")
