"""Backups and their restore, as docs/operations.md says: whatever is counted before is there afterwards."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import greenstalk
import pytest
import redis
import server_processes
from sqlalchemy import URL, MetaData, text

from common.fields import new_id
from common.postgres.url import database_url
from common.settings import PostgresSettings
from likes_service.store import LikesStore
from tests.own_server import Own
from tests.polling import eventually
from tests.programs import program
from timelines_service.models import AcceptedPost
from timelines_service.store import TimelinesStore
from timelines_service.tables import metadata as timelines_tables
from users_service.models import NewUser
from users_service.store import UsersStore
from users_service.tables import metadata as users_tables

PASSWORD = "correct horse"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)

Restore = Callable[[str, str], None]


def url_of(port: int, name: str) -> URL:
    return database_url(PostgresSettings(_env_file=None, db_port=port), None, name)


def counts(store: UsersStore | TimelinesStore, tables: MetaData) -> Mapping[str, int]:
    with store._database.autocommit() as connection:
        return {
            name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in sorted(tables.tables)
        }


@pytest.fixture
def restore(postgres: int, tmp_path: Path) -> Restore:
    """Back up one database, and restore it as another."""
    where = ["-h", "127.0.0.1", "-p", str(postgres), "-U", "postgres"]

    def run(name: str, *arguments: str) -> None:
        environment = os.environ | {"PGPASSWORD": "postgres"}
        subprocess.run([program(name), *where, *arguments], env=environment, check=True)

    def restore(source: str, target: str) -> None:
        dump = str(tmp_path / f"{source}.dump")
        run("pg_dump", "-Fc", "--exclude-table-data=stream_events", "-f", dump, source)
        run("createdb", "-T", "template0", "-E", "UTF8", target)
        run("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "-d", target, dump)

    return restore


def test_users_are_restored_with_what_counts_and_finds_them(postgres: int, restore: Restore) -> None:
    with closing(UsersStore.connect(url_of(postgres, "test_backup_users"))) as users:
        users.prepare()
        for name in ("alice", "bobby", "carol"):
            users.register(NewUser(username=name, password=PASSWORD), "no hash")
        users.follow("alice", "bobby")
        before = counts(users, users_tables)
    restore("test_backup_users", "test_restored_users")

    with closing(UsersStore.connect(url_of(postgres, "test_restored_users"))) as restored:
        restored.prepare()
        assert counts(restored, users_tables) == before
        assert before["users"] == 3
        # Triggers count, and sequences go on.
        restored.follow("carol", "bobby")
        assert restored.profile("bobby").followers_count == 2
        assert restored.revocations.revoke_all("alice", timedelta(hours=1))


def test_posts_are_restored_without_the_log_of_streams(postgres: int, restore: Restore) -> None:
    with closing(TimelinesStore.connect(url_of(postgres, "test_backup_timelines"))) as timelines:
        timelines.prepare()
        posts = [
            AcceptedPost(id=new_id(), username="alice", text=f"#{tag} tea", created_at=NOW)
            for tag in ("green", "black")
        ]
        timelines.add_missing(posts)
        before = counts(timelines, timelines_tables)
    restore("test_backup_timelines", "test_restored_timelines")

    with closing(TimelinesStore.connect(url_of(postgres, "test_restored_timelines"))) as restored:
        restored.prepare()
        assert counts(restored, timelines_tables) == {**before, "stream_events": 0}
        assert (before["posts"], before["stream_events"]) == (2, 2)
        assert restored.post(posts[0].id).text == "#green tea"


@pytest.fixture
def redis_at() -> Iterator[Callable[..., server_processes.Server]]:
    """Start a Redis on a folder of these files."""
    started: list[server_processes.Server] = []

    def start(folder: Path, durable: bool) -> server_processes.Server:
        server = server_processes.redis(folder, server_processes.free_port(), durable)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


def is_rewriting(persistence: Mapping[str, int]) -> bool:
    return any(persistence[f"aof_rewrite_{state}"] for state in ("in_progress", "scheduled"))


@pytest.mark.kills
def test_likes_are_restored_into_an_append_only_file(
    redis_at: Callable[..., server_processes.Server], tmp_path: Path
) -> None:
    source = redis_at(tmp_path / "source", durable=True)
    post_id, backup = new_id(), tmp_path / "likes.rdb"
    with closing(LikesStore.connect(f"redis://127.0.0.1:{source.port}/0")) as likes:
        for name in ("alice", "bobby"):
            likes.like(post_id, name, NOW, NOW)
    subprocess.run([program("redis-cli"), "-p", str(source.port), "--rdb", str(backup)], check=True)
    source.stop()
    folder = tmp_path / "restored"
    folder.mkdir()
    shutil.copy(backup, folder / "dump.rdb")

    # A Redis with an append-only file that is not there yet starts empty, and ignores dump.rdb.
    loading = redis_at(folder, durable=False)
    with redis.Redis(port=loading.port) as client:
        client.config_set("appendonly", "yes")
        eventually(lambda: not is_rewriting(client.info("persistence")))
    loading.stop()

    restored = redis_at(folder, durable=True)
    with closing(LikesStore.connect(f"redis://127.0.0.1:{restored.port}/0")) as likes:
        assert likes.count(post_id).count == 2


@pytest.mark.kills
def test_jobs_are_restored_from_the_files_of_a_stopped_beanstalkd(own: Own, tmp_path: Path) -> None:
    source = own(server_processes.beanstalkd)
    source.start()
    with greenstalk.Client(("127.0.0.1", source.port), use="posts") as client:
        for delay in (0, 3600):
            client.put("job", delay=delay)
    source.stop()
    shutil.copytree(source._data, tmp_path / "backup", ignore=shutil.ignore_patterns("lock"))

    restored = own(partial(_beanstalkd_on, tmp_path / "backup"))
    restored.start()

    with greenstalk.Client(("127.0.0.1", restored.port)) as client:
        stats = client.stats_tube("posts")
    assert (stats["current-jobs-ready"], stats["current-jobs-delayed"]) == (1, 1)


def _beanstalkd_on(folder: Path, _: Path, port: int) -> server_processes.Server:
    return server_processes.beanstalkd(folder, port)
