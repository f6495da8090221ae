"""Users who are mentioned in posts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from common.errors import Unavailable
from common.fields import new_id
from common.jobs.queue import JobQueue
from tests.polling import PATIENCE_SECONDS
from tests.timelines_service.conftest import Users
from timelines_service import workers
from timelines_service.models import AcceptedPost
from timelines_service.post_query import Page
from timelines_service.service import MentionResolver
from timelines_service.store import TimelinesStore

Headers = Callable[[str], dict[str, str]]

TOLD = text("""
    SELECT recipient, actor, post_id FROM notifications
    WHERE kind = 'mention' AND NOT is_withdrawn ORDER BY recipient
""")


@pytest.fixture
def resolver(app: FastAPI, store: TimelinesStore, users: Users) -> MentionResolver:
    """The worker's, beside a users service with alice, bobby and carol."""
    users.followees |= {"alice": [], "bobby": [], "carol": []}
    return MentionResolver(store, app.state.timelines._users)


@pytest.fixture
def alice(as_user: Headers, resolver: MentionResolver) -> dict[str, str]:
    return as_user("alice")


def _write(client: TestClient, alice: dict[str, str], words: str, **headers: str) -> dict[str, Any]:
    written = client.post("/posts", json={"text": words}, headers=alice | headers)
    assert written.status_code == 201, written.text
    post: dict[str, Any] = written.json()
    return post


def _told(store: TimelinesStore) -> list[str]:
    return [recipient for recipient, _, _ in store._database.rows(TOLD, {})]


def _mentions(client: TestClient, post: dict[str, Any]) -> list[str]:
    found: list[str] = client.get(f"/posts/id/{post['id']}").json()["mentions"]
    return found


def test_a_post_says_which_users_it_mentions(
    client: TestClient, alice: dict[str, str], store: TimelinesStore
) -> None:
    post = _write(client, alice, "@carol and @Bobby, not @nobody1")

    assert post["mentions"] == _mentions(client, post) == ["carol", "bobby"]
    assert _told(store) == ["bobby", "carol"]


def test_a_mention_of_oneself_tells_nobody(
    client: TestClient, alice: dict[str, str], store: TimelinesStore
) -> None:
    assert _write(client, alice, "@alice")["mentions"] == ["alice"]
    assert _told(store) == []


def test_a_post_without_mentions_needs_no_other_service(
    client: TestClient, alice: dict[str, str], users: Users
) -> None:
    assert _write(client, alice, "me@example.com: good morning")["mentions"] == []
    assert users.statuses == []


def test_the_same_key_tells_once(client: TestClient, alice: dict[str, str], store: TimelinesStore) -> None:
    for _ in range(2):
        _write(client, alice, "@bobby", **{"Idempotency-Key": "once"})

    assert _told(store) == ["bobby"]


def test_mentions_are_resolved_when_the_users_service_is_back(
    client: TestClient, alice: dict[str, str], users: Users, resolver: MentionResolver, store: TimelinesStore
) -> None:
    users.is_away = True
    post = _write(client, alice, "@bobby, not @nobody1")
    with pytest.raises(Unavailable):
        resolver.resolve()
    assert (_mentions(client, post), _told(store)) == ([], [])
    users.is_away = False

    for _ in range(2):
        assert not resolver.resolve()

    assert (_mentions(client, post), _told(store)) == (["bobby"], ["bobby"])


def test_a_queued_post_has_its_mentions_from_the_worker(
    client: TestClient, resolver: MentionResolver, store: TimelinesStore
) -> None:
    post = AcceptedPost(id=new_id(), username="alice", text="@bobby", created_at=datetime.now(UTC))
    for _ in range(2):
        store.add_missing([post])
        resolver.resolve()

    assert store.post(post.id).mentions == _told(store) == ["bobby"]


def test_a_worker_stores_a_post_with_its_mentions(
    app: FastAPI, users: Users, store: TimelinesStore, queues: Callable[[], JobQueue]
) -> None:
    users.followees = {"bobby": []}
    queue = queues()
    queue.put(
        AcceptedPost(id=new_id(), username="alice", text="@bobby @nobody1", created_at=datetime.now(UTC))
    )
    job = queue.reserve(PATIENCE_SECONDS)
    assert job

    for _ in range(2):
        workers.save(store, app.state.timelines._users, [job])

    [post] = store.newest(Page(2))
    assert post.mentions == _told(store) == ["bobby"]


def test_a_mention_of_long_ago_is_no_news(resolver: MentionResolver, store: TimelinesStore) -> None:
    ago = datetime.now(UTC) - timedelta(days=2)
    store.add_missing([AcceptedPost(id=new_id(), username="alice", text="@bobby", created_at=ago)])
    resolver.resolve()

    assert _told(store) == []


def test_an_edit_changes_the_mentions(
    client: TestClient, alice: dict[str, str], store: TimelinesStore
) -> None:
    post = _write(client, alice, "@bobby")
    for words in ("@carol", "@carol again", "@carol, @alice"):
        edited = client.patch(f"/posts/id/{post['id']}", json={"text": words}, headers=alice).json()

    assert (edited["mentions"], _told(store)) == (["carol", "alice"], ["carol"])


def test_an_edit_while_the_users_service_is_away_is_resolved_later(
    client: TestClient, alice: dict[str, str], users: Users, resolver: MentionResolver, store: TimelinesStore
) -> None:
    post = _write(client, alice, "@bobby and @carol")
    users.is_away = True
    client.patch(f"/posts/id/{post['id']}", json={"text": "@carol and @alice"}, headers=alice)
    assert (_mentions(client, post), _told(store)) == (["carol"], ["carol"])
    users.is_away = False

    resolver.resolve()

    assert (_mentions(client, post), _told(store)) == (["carol", "alice"], ["carol"])


def test_what_was_edited_meanwhile_is_not_resolved(
    client: TestClient, alice: dict[str, str], resolver: MentionResolver, store: TimelinesStore
) -> None:
    post = _write(client, alice, "@bobby")

    store.mentions.resolve(post["id"], "@carol", ["carol"])

    assert _mentions(client, post) == ["bobby"]
