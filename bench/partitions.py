"""What partitions of posts cost, by author and by time: docs/decisions/0035-how-posts-are-spread.md.

.venv/bin/python -m bench.partitions [--posts 3000000] [--rounds 300]

Three tables of the same posts on a PostgreSQL of its own: one whole, one in sixteen partitions by a hash of
the author, one in twelve by time. The statements have the shape of those of the timelines service. One author
in ten has not written for eleven months.
"""

import argparse
import random
import time
from collections.abc import Callable
from contextlib import closing
from statistics import median
from typing import Any

import server_processes

from bench import seed
from bench.processes import Processes
from bench.report import progress, table

AUTHORS, ACTIVE = 10_000, 9_000
FOLLOWEES = 39
HASHES, MONTHS = 16, 12
MONTH_MS = 30 * 86_400_000
BEGIN_MS = 1_700_000_000_000

COLUMNS = 'id uuid NOT NULL, username text COLLATE "C" NOT NULL, text text NOT NULL'
TABLES = {
    "whole": ("", "id", []),
    "by author": (
        "PARTITION BY HASH (username)",
        "id, username",
        [f"FOR VALUES WITH (MODULUS {HASHES}, REMAINDER {part})" for part in range(HASHES)],
    ),
    "by time": (
        "PARTITION BY RANGE (id)",
        "id",
        [
            f"FOR VALUES FROM ('{BEGIN_MS + part * MONTH_MS:012x}{0:020x}') "
            f"TO ('{BEGIN_MS + (part + 1) * MONTH_MS:012x}{0:020x}')"
            for part in range(MONTHS)
        ],
    ),
}
# As the service makes ids: their order is that of time. The last authors wrote in the first month only.
FILL = f"""
    INSERT INTO whole
    SELECT
        CAST(
            lpad(to_hex(ms), 12, '0') || '7' || substr(md5(n::text), 1, 3)
            || '8' || substr(md5(n::text), 4, 15) AS uuid
        ),
        'user' || n * 7919 %% CASE WHEN ms < {BEGIN_MS + MONTH_MS} THEN {AUTHORS} ELSE {ACTIVE} END,
        repeat('word ', 20)
    FROM (
        SELECT n, {BEGIN_MS} + n * {MONTHS * MONTH_MS} / %(posts)s AS ms
        FROM generate_series(0, CAST(%(posts)s AS bigint) - 1) AS n
    ) AS made
"""
HOME = """
    WITH active AS MATERIALIZED (
        SELECT source.username, newest.id
        FROM unnest(%(names)s) AS source (username)
        CROSS JOIN LATERAL (
            SELECT id FROM {table} AS page WHERE page.username = source.username COLLATE "C"
            ORDER BY id DESC LIMIT 1
        ) AS newest
        ORDER BY newest.id DESC LIMIT 20
    )
    SELECT theirs.* FROM active CROSS JOIN LATERAL (
        SELECT * FROM {table} AS page WHERE page.username = active.username COLLATE "C"
        ORDER BY id DESC LIMIT (SELECT 20)
    ) AS theirs
    ORDER BY theirs.id DESC LIMIT 20
"""
USER = "SELECT * FROM {table} WHERE username = %(name)s ORDER BY id DESC LIMIT 20"
NEWEST = "SELECT * FROM {table} ORDER BY id DESC LIMIT 20"
ONE = "SELECT * FROM {table} WHERE id = %(id)s"
ADD = "INSERT INTO {table} VALUES (%(id)s, %(name)s, 'word')"


def name(number: int) -> str:
    return f"user{number}"


def create(cursor: Any, posts: int) -> None:
    for number, (kind, (how, key, parts)) in enumerate(TABLES.items()):
        progress(number, len(TABLES), f"filling the table {kind}")
        table_name = kind.replace(" ", "_")
        cursor.execute(f"CREATE TABLE {table_name} ({COLUMNS}) {how}")
        for part, bounds in enumerate(parts):
            cursor.execute(f"CREATE TABLE {table_name}_{part} PARTITION OF {table_name} {bounds}")
        if how:
            cursor.execute(f"INSERT INTO {table_name} SELECT * FROM whole")
        else:
            cursor.execute(FILL, {"posts": posts})
        cursor.execute(f"ALTER TABLE {table_name} ADD PRIMARY KEY ({key})")
        cursor.execute(f"CREATE INDEX ON {table_name} (username, id)")
        cursor.execute(f"VACUUM ANALYZE {table_name}")


def arguments(ids: list[str]) -> dict[str, Callable[[], dict[str, object]]]:
    """What each statement asks for next."""
    last = BEGIN_MS + MONTHS * MONTH_MS - 1

    def home() -> dict[str, object]:
        return {"names": [name(number) for number in random.sample(range(AUTHORS), FOLLOWEES)]}

    def new() -> dict[str, object]:
        return {"id": f"{last:012x}{random.getrandbits(80):020x}", "name": name(random.randrange(ACTIVE))}

    return {
        HOME: home,
        USER: lambda: {"name": name(random.randrange(ACTIVE))},
        f"{USER} ": lambda: {"name": name(random.randrange(ACTIVE, AUTHORS))},
        NEWEST: dict,
        ONE: lambda: {"id": random.choice(ids)},
        ADD: new,
    }


LABELS = (
    f"a home timeline of {FOLLOWEES} followees", "the posts of a user", "of one who has not written for long",
    "everybody's newest", "one post by its id", "a new post",
)  # fmt: skip


def measure(cursor: Any, statement: str, values: Callable[[], dict[str, object]], rounds: int) -> list[float]:
    """The median of each table, in milliseconds. They take turns: what disturbs a round disturbs all."""
    times: list[list[float]] = [[] for _ in TABLES]
    for _ in range(rounds):
        given = values()
        for of_table, kind in zip(times, TABLES, strict=True):
            asked = statement.format(table=kind.replace(" ", "_"))
            began = time.perf_counter()
            cursor.execute(asked, given)
            of_table.append((time.perf_counter() - began) * 1000)
    return list(map(median, times))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--posts", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    with Processes() as processes:
        port = processes.store(server_processes.postgres)
        with closing(seed.connect(port, "postgres")) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            # What a disk takes to be sure is the same for each.
            cursor.execute("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'; SET jit = off")
            create(cursor, options.posts)
            cursor.execute("SELECT CAST(id AS text) FROM whole TABLESAMPLE SYSTEM (0.1)")
            kinds = arguments([row[0] for row in cursor.fetchall()])
            rows = [
                [label, *measure(cursor, statement, values, options.rounds)]
                for label, (statement, values) in zip(LABELS, kinds.items(), strict=True)
            ]
    table([f"ms, of {options.posts:,} posts", *TABLES], rows)


if __name__ == "__main__":
    main()
