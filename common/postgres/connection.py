"""Opens connections: to PostgreSQL itself, or to a pooler before it."""

from collections.abc import Mapping
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

# A machine that vanishes says nothing: the system notices within half a minute, even while a migration waits.
KEEPALIVES = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "4"}
DEFAULTS = {"client_encoding": "UTF8", **KEEPALIVES}


def connect(parameters: Mapping[str, str], statement_seconds: float) -> Any:
    """A connection in UTC; its statements end after so many seconds, if nothing refuses to be told."""
    parameters = {**DEFAULTS, **parameters}
    # Compiling a statement for thousands of followees takes longer than running it.
    ours = f"-c statement_timeout={statement_seconds * 1000:.0f} -c jit=off"
    # What comes later wins.
    options = f"{ours} {parameters.get('options', '')}".strip()
    try:
        connection = psycopg2.connect(make_dsn(**{**parameters, "options": options}))
    except psycopg2.OperationalError as exc:
        if "unsupported startup parameter" not in str(exc):
            raise
        # PgBouncer. Its server connections are shared, so SET would reach other clients: the role has to have
        # the limit, else the client's own deadline is the only one.
        connection = psycopg2.connect(make_dsn(**parameters))
    if connection.get_parameter_status("TimeZone") != "UTC":
        _use_utc(connection)
    return connection


def _use_utc(connection: Any) -> None:
    """The one kind of SET that a pooler follows: the server reports each change of the time zone."""
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
    connection.autocommit = False
