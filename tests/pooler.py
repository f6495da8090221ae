"""PgBouncer in transaction mode before a PostgreSQL: `own(pooler(port))`."""

import os
from pathlib import Path

import psycopg2
import server_processes

from tests.own_server import Kind

# Anybody may come in; to PostgreSQL, all are the user of the suite's defaults.
CONFIGURATION = """
[databases]
* = host={host} port={postgres} user=postgres password=postgres

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
server_login_retry = 0.1
"""


def pooler(postgres: int) -> Kind:
    """Two connections to the PostgreSQL on this port for each database, however many clients there are."""

    def start(data: Path, port: int) -> server_processes.Server:
        data.mkdir(parents=True, exist_ok=True)
        file = data / "pgbouncer.ini"
        host = server_processes.HOST
        file.write_text(CONFIGURATION.format(host=host, postgres=postgres, port=port))
        # Like PostgreSQL, it refuses to run as root.
        account = server_processes._unprivileged() if os.geteuid() == 0 else None
        command = [*server_processes._as(account), server_processes._binary("pgbouncer"), str(file)]
        return server_processes._start(
            "pgbouncer",
            port,
            command,
            data,
            lambda: psycopg2.connect(host=host, port=port, user="postgres", dbname="postgres").close(),
        )

    return start
