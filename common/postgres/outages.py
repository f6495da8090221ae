"""Which errors say that PostgreSQL cannot serve now. docs/decisions/0011-outages-by-sqlstate.md says why."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from common.errors import CannotServe, CredentialsRejected

# By SQLSTATE or by its beginning; the longest that fits counts. What is not here is a bug or a constraint, or
# passes by itself: a deadlock, a lock timeout, a cancelled query, for which the driver has OperationalError.
REASONS = {
    "08": "breaks off",
    "25": "has a session in a state that it cannot go on from",
    "25006": "is read-only",
    "26": "has lost the state of a session",
    "28": "rejects the session's user",
    "3D": "lacks the database",
    "3F": "lacks the schema",
    "42501": "does not grant a right",
    "42703": "lacks a column",
    "42704": "lacks an object",
    "42804": "has a column of another type",
    "42809": "has an object of another kind",
    "42883": "lacks a function",
    "42P01": "lacks a table",
    "42P10": "lacks an index",
    "53": "is short of resources",
    "53100": "has a full disk",
    "53200": "is out of memory",
    "53300": "has too many connections",
    "53400": "has reached a limit of its configuration",
    "57P": "is starting, stopping or restarting",
    "58": "has an I/O error",
    "F0": "cannot read its configuration",
    "XX": "has an internal error",
    "XX001": "has corrupted data",
    "XX002": "has a corrupted index",
}
# psycopg2 passes on no SQLSTATE before there is a connection, so the English texts of the server, of libpq
# and of PgBouncer have to do. In another language, the server only "cannot be reached".
REFUSALS = {
    r"database .* does not exist|no such database": "lacks the database",
    r"too many (clients|connections)|connection slots|no more connections": "has too many connections",
    r"the database system is|not currently accepting connections": "is starting, stopping or restarting",
    r"session is read-only|hot standby mode|session is not read-only": "is not what the URL asks for",
    r"permission denied for database": "does not grant the right to connect",
    r"unsupported startup parameter": "is behind a pooler that refuses the URL's options",
    r"does not support SSL|certificate|private key": "does not offer TLS as the URL asks for it",
    r"could not translate host name": "has a host name that is unknown",
}
# What the server says of a connection with SQLSTATE 28P01 or 28000, and libpq of one without a password.
REJECTED = re.compile(
    r"authentication failed for user|no password supplied|role .* does not exist|no pg_hba\.conf entry"
    r"|pg_hba\.conf rejects connection|not permitted to log in"
)
# A new connection would not help, and might make it worse.
SHORT_OF_RESOURCES = "53"


class PostgresCannotServe(CannotServe):
    """PostgreSQL, or a pooler before it, responds but cannot do what is needed now."""


@contextmanager
def told_apart(url: URL) -> Iterator[None]:
    """Raise PostgresCannotServe or CredentialsRejected in place of the drivers' errors that say so."""
    try:
        yield
    except (psycopg2.Error, DBAPIError) as exc:
        if outage := _outage(_driver_error(exc), url):
            raise outage from exc
        raise


def spoils_connections(exc: psycopg2.Error | DBAPIError | PostgresCannotServe) -> bool:
    """Whether the connection that met this, and those opened before, may meet it again."""
    if isinstance(exc, PostgresCannotServe):
        return True
    error = _driver_error(exc)
    if error.pgcode is None:
        # The driver's own: the connection is lost, or out of step.
        return not isinstance(error, psycopg2.ProgrammingError | psycopg2.DataError)
    return _reason(error.pgcode) is not None and not error.pgcode.startswith(SHORT_OF_RESOURCES)


def _outage(error: psycopg2.Error, url: URL) -> Exception | None:
    if error.pgcode:
        reason = _reason(error.pgcode)
        # Only the first line of the server's report is free of what a client has sent.
        said = f"{reason}: {error.diag.message_primary} ({error.pgcode})"
        return PostgresCannotServe(said) if reason else None
    text = str(error).strip()
    if REJECTED.search(text):
        return _rejected(text, url)
    return next((PostgresCannotServe(REFUSALS[one]) for one in REFUSALS if re.search(one, text)), None)


def _driver_error(exc: psycopg2.Error | DBAPIError) -> psycopg2.Error:
    """The driver's error, which SQLAlchemy wraps."""
    error = exc.orig if isinstance(exc, DBAPIError) else exc
    assert isinstance(error, psycopg2.Error)
    return error


def _reason(sqlstate: str) -> str | None:
    return next((REASONS[sqlstate[:n]] for n in (5, 3, 2) if sqlstate[:n] in REASONS), None)


def _rejected(text: str, url: URL) -> CredentialsRejected:
    host, port = url.host or url.query.get("host") or "localhost", url.port or url.query.get("port") or 5432
    return CredentialsRejected(
        f"PostgreSQL at {host}:{port} rejects user {url.username}: "
        f"correct DB_USER and DB_PASSWORD, or *_DATABASE_URL where it is set ({text})"
    )
