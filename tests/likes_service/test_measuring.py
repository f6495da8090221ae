"""What is measured of likes and of Redis, on a real one."""

from uuid import uuid4

import pytest
import redis
import server_processes

from likes_service.store import LikesStore
from tests.scrape import growth, value

OPERATIONS = "db_client_operation_duration_seconds_count"


def test_a_like_counts_once_and_so_does_taking_it_back(client, as_user) -> None:
    path, alice = f"/likes/{uuid4()}", as_user("alice")

    with (
        growth("microblog_likes_total", change="liked") as liked,
        growth("microblog_likes_total", change="unliked") as unliked,
    ):
        for call in (client.post, client.post, client.delete, client.delete):
            call(path, headers=alice).raise_for_status()

        assert (liked(), unliked()) == (1, 1)


def test_a_command_is_counted_by_its_name(store) -> None:
    with growth(OPERATIONS, db_system_name="redis", db_operation_name="ZCARD", error_type="") as growing:
        store.count(uuid4())

        assert growing() == 1


def test_an_outage_is_counted_by_its_error() -> None:
    store = LikesStore.connect(f"redis://127.0.0.1:{server_processes.free_port()}/0")
    with growth(OPERATIONS, db_system_name="redis", error_type="ConnectionError") as growing:
        with pytest.raises(redis.ConnectionError):
            store.count(uuid4())

        assert growing() == 1


def test_connections_are_shown(store) -> None:
    store.count(uuid4())

    assert value("db_client_connection_count", db_client_connection_pool_name="redis") >= 1
