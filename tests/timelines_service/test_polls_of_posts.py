"""Posts that show a poll."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from common.fields import new_id
from common.postgres.outbox import RecordedEvent
from tests.timelines_service.conftest import Polls
from timelines_service.models import AcceptedPost
from timelines_service.store import TimelinesStore

Headers = Callable[[str], dict[str, str]]
Write = Callable[..., httpx.Response]
PATHS = pytest.mark.parametrize("path", ["/posts", "/posts/async"])


@pytest.fixture
def poll_id(polls: Polls) -> str:
    """A poll of alice's."""
    poll_id = str(new_id())
    polls.authors[poll_id] = "alice"
    return poll_id


@pytest.fixture
def write(client: TestClient, as_user: Headers, poll_id: str) -> Write:
    """Write a post with the poll."""

    def write(path: str = "/posts", username: str = "alice", **given: Any) -> httpx.Response:
        key = given.pop("key", None)
        headers = as_user(username) | ({"Idempotency-Key": key} if key else {})
        return client.post(path, json={"text": "Vote!", "poll_id": poll_id} | given, headers=headers)

    return write


def test_a_post_says_which_poll_it_shows_wherever_it_is_read(
    client: TestClient, write: Write, poll_id: str, as_user: Headers
) -> None:
    written = write()
    post = written.json()
    client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby"))

    assert (written.status_code, post["poll_id"]) == (201, poll_id)
    assert client.get(f"/posts/id/{post['id']}").json()["poll_id"] == poll_id
    assert client.get("/posts/alice").json()[0]["poll_id"] == poll_id
    assert client.get("/posts/bobby").json()[0]["repost_of"]["poll_id"] == poll_id


def test_an_edit_keeps_the_poll(client: TestClient, write: Write, poll_id: str, as_user: Headers) -> None:
    path = f"/posts/id/{write().json()['id']}"

    assert client.patch(path, json={"text": "!"}, headers=as_user("alice")).json()["poll_id"] == poll_id


def test_a_post_without_a_poll_makes_no_call(client: TestClient, polls: Polls, as_user: Headers) -> None:
    polls.is_away = True

    assert client.post("/posts", json={"text": "Hi"}, headers=as_user("alice")).status_code == 201
    assert polls.calls == 0


@PATHS
def test_a_post_with_no_poll_that_there_is_is_404(write: Write, path: str) -> None:
    response = write(path, poll_id=str(new_id()))

    assert (response.status_code, response.json()["code"]) == (404, "poll_not_found")


@PATHS
def test_a_post_with_anothers_poll_is_403(write: Write, path: str) -> None:
    response = write(path, "bobby")

    assert (response.status_code, response.json()["code"]) == (403, "not_your_poll")


@PATHS
def test_a_post_with_a_poll_is_503_while_polls_cannot_tell(write: Write, polls: Polls, path: str) -> None:
    polls.is_away = True
    response = write(path)

    assert (response.status_code, response.json()["code"]) == (503, "polls_unavailable")


@PATHS
def test_a_second_post_with_one_poll_is_409(write: Write, path: str) -> None:
    write()
    response = write(path)

    assert (response.status_code, response.json()["code"]) == (409, "poll_in_use")


def test_of_posts_with_one_poll_at_once_one_is_written(write: Write) -> None:
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: write().status_code, range(8)))

    assert sorted(statuses) == [201] + [409] * 7


def test_the_same_key_and_poll_again_get_the_first_post(write: Write) -> None:
    first, again = write(key="once"), write(key="once")

    assert (again.status_code, again.json()) == (201, first.json())


def test_the_same_key_without_the_poll_is_422(write: Write) -> None:
    write(key="once")

    assert write(key="once", poll_id=None).json()["code"] == "idempotency_key_reused"


def _accepted(poll_id: str | None) -> AcceptedPost:
    return AcceptedPost(
        id=new_id(), username="alice", text="Later!", created_at=datetime.now(UTC), poll_id=poll_id
    )


def test_a_queued_post_keeps_its_poll_however_often_its_job_comes(
    store: TimelinesStore, poll_id: str
) -> None:
    post = _accepted(poll_id)
    store.add_missing([post])
    store.add_missing([post, post])

    assert str(store.post(post.id).poll_id) == poll_id


def test_of_two_queued_posts_with_one_poll_the_later_has_its_text_only(
    store: TimelinesStore, poll_id: str
) -> None:
    first, *later = (_accepted(poll_id) for _ in range(3))
    store.add_missing([first, later[0]])
    store.add_missing([later[1]])

    assert [str(post.poll_id) for post in store.posts([first.id, *(one.id for one in later)])] == [
        poll_id, "None", "None",
    ]  # fmt: skip


def test_a_queued_job_of_the_last_version_has_no_poll() -> None:
    job = _accepted(None).model_dump(mode="json")
    del job["poll_id"]

    assert AcceptedPost.model_validate(job).poll_id is None


def test_polls_is_told_of_a_deleted_post_with_a_poll(store: TimelinesStore, poll_id: str) -> None:
    post = store.add(_accepted(poll_id))
    store.deletions.delete(post.id, "alice")
    events: list[RecordedEvent] = []
    store.outbox.relay(events.append)

    [told] = [one.payload for one in events if one.tube == "events.polls"]
    assert told.pop("at")
    assert told == {
        "kind": "post_deleted",
        "post_id": str(post.id),
        "poll_id": poll_id,
        "username": "alice",
    }
