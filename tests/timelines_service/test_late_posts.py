"""Pages of newer posts, while posts are stored later than they were written: none is missed or doubled."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Connection, NullPool, create_engine, text

from common.fields import new_id
from tests.polling import eventually
from tests.timelines_service.conftest import Users
from timelines_service.models import AcceptedPost
from timelines_service.post_query import Page
from timelines_service.post_tags import add_tags
from timelines_service.settings import TimelinesSettings
from timelines_service.store import ADD, TimelinesStore, row_of
from timelines_service.stream_log import RESUME_SECONDS, Position

ORIGINAL = AcceptedPost(
    id=UUID("019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"),
    username="carol",
    text="Tea?",
    created_at=datetime.now(UTC),
)
WAITS = text("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


class Reader:
    """Reads a list of posts, page by page, as its links lead."""

    def __init__(self, client: TestClient, headers: dict[str, str], path: str) -> None:
        self._client = client
        self._headers = headers
        self.links = {"prev": path}

    def newer(self) -> list[str]:
        """The ids of the next page of newer posts. An empty page is read again the next time."""
        return self.follow("prev")

    def follow(self, rel: str) -> list[str]:
        page = self._client.get(self.links[rel], headers=self._headers)
        assert page.status_code == 200, page.text
        if page.json():
            self.links = {name: link["url"] for name, link in page.links.items()}
        return [item["id"] for item in page.json()]

    def rest(self) -> Iterator[list[str]]:
        """All pages until an empty one."""
        while page := self.newer():
            yield page


Read = Callable[[str], Reader]


@pytest.fixture
def read(client: TestClient, as_user: Callable[[str], dict[str, str]], users: Users) -> Read:
    users.followees.update({"reader": ["alice"], "alice": [], "carol": []})
    return lambda path: Reader(client, as_user("reader"), path)


@pytest.fixture
def slow(settings: TimelinesSettings, store: TimelinesStore) -> Iterator[Connection]:
    """A connection past the service, whose transaction takes as long as the test likes."""
    with create_engine(settings.database, poolclass=NullPool).connect() as connection:
        yield connection


def _post() -> AcceptedPost:
    """A post that is in all lists of `LISTS`."""
    return AcceptedPost(
        id=new_id(),
        username="alice",
        text="#tea",
        created_at=datetime.now(UTC),
        in_reply_to=ORIGINAL.id,
    )


def _write(connection: Connection, post: AcceptedPost) -> None:
    """Store a post as the service does, but for the commit."""
    connection.execute(ADD, row_of(post, ()))
    add_tags(connection, [post.id])


def _ids(*posts: AcceptedPost) -> list[str]:
    return [str(post.id) for post in posts]


LISTS = [
    "/posts",
    "/posts/alice",
    "/posts/alice?tag=tea",
    "/posts/home/reader",
    f"/posts/id/{ORIGINAL.id}/replies",
    "/tags/tea",
    "/search/posts?q=tea",
]


@pytest.mark.parametrize("path", LISTS)
def test_a_post_whose_transaction_commits_late_is_on_a_page_of_newer_posts(
    store: TimelinesStore, slow: Connection, read: Read, path: str
) -> None:
    store.add(ORIGINAL)
    late, fast = _post(), _post()
    _write(slow, late)
    store.add(fast)
    reader = read(path)

    assert reader.newer()[0] == str(fast.id)
    assert reader.newer() == []
    slow.commit()
    assert reader.newer() == _ids(late)
    store.add(last := _post())
    assert reader.newer() == _ids(last)
    assert reader.newer() == []


def test_a_queued_post_that_is_stored_late_is_on_a_page_of_newer_posts(
    store: TimelinesStore, read: Read
) -> None:
    store.add(ORIGINAL)
    queued, *newer = (_post() for _ in range(3))
    store.add(newer[0])
    reader = read("/posts")
    reader.newer()
    store.add_missing([queued])
    store.add(newer[1])

    assert reader.newer() == _ids(newer[1], queued)
    assert reader.newer() == []


def test_a_repost_that_commits_late_is_on_a_page_of_newer_ones(
    store: TimelinesStore, slow: Connection, client: TestClient
) -> None:
    store.add(ORIGINAL)
    repost = {"repost_of": ORIGINAL.id, "at": datetime.now(UTC)}
    insert = text("""
        INSERT INTO posts (id, username, text, created_at, repost_of, original_author)
        VALUES (:id, :name, '', :at, :repost_of, 'carol')
    """)
    slow.execute(insert, repost | {"id": new_id(), "name": "late"})
    store.reposts.add(ORIGINAL.id, "fast")
    first = client.get(f"/posts/id/{ORIGINAL.id}/reposters")
    slow.commit()

    second = client.get(first.links["prev"]["url"])

    assert [one["username"] for one in first.json()] == ["fast"]
    assert [one["username"] for one in second.json()] == ["late"]


@pytest.mark.parametrize("path", LISTS)
def test_more_late_posts_than_a_page_come_on_several(
    store: TimelinesStore, read: Read, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timelines_service.stream_log.PAGE", 3)
    store.add(ORIGINAL)
    late, others = [_post() for _ in range(7)], [_post().model_copy(update=OTHERS) for _ in range(4)]
    store.add(fast := _post())
    reader = read(f"{path}{'&' if '?' in path else '?'}limit=2")
    assert reader.newer()[0] == str(fast.id)
    store.add_missing(others)
    store.add_missing(late)
    store.add(last := _post())

    pages = list(reader.rest())

    found = [post_id for page in pages for post_id in page]
    assert sorted(set(found) - set(_ids(*others))) == _ids(*late, last)
    assert len(found) == len(set(found))
    assert max(map(len, pages)) == 2


# In the public timeline alone.
OTHERS = {"username": "carol", "text": "Coffee", "in_reply_to": None}


def test_of_late_posts_alone_the_links_lead_where_the_client_was(store: TimelinesStore, read: Read) -> None:
    store.add(ORIGINAL)
    late = _post()
    store.add(shown := _post())
    reader = read("/posts")
    reader.newer()
    store.add_missing([late])
    reader.newer()

    assert reader.follow("next") == _ids(shown, late, ORIGINAL)


def test_a_reader_beside_many_writers_gets_each_post_once(store: TimelinesStore, read: Read) -> None:
    store.add(ORIGINAL)
    posts = [_post() for _ in range(40)]
    reader = read("/posts?limit=5")
    reader.newer()
    with ThreadPoolExecutor(4) as writers:
        writing = writers.map(store.add, reversed(posts))
        found = [post_id for _ in range(10) for post_id in reader.newer()]
        list(writing)

    found += [post_id for page in reader.rest() for post_id in page]

    assert sorted(found) == _ids(*posts)


def test_what_a_page_has_seen_is_known_for_fifteen_minutes(store: TimelinesStore) -> None:
    store.add(ORIGINAL)
    late = _post()
    store.add(_post())
    page = store.newest(Page(2))
    store.add_missing([late])
    seen = page.seen
    assert seen
    newer = Page(2, after=page[0].id, seen=seen)
    too_old = newer._replace(seen=seen._replace(at=seen.at - RESUME_SECONDS - 60))

    assert [post.id for post in store.newest(newer)] == [late.id]
    assert store.newest(too_old) == []


@pytest.mark.parametrize("seen", ["", "1", "1-2-3-4-5;", "9" * 4001])
def test_what_no_page_can_have_seen_is_422(client: TestClient, seen: str) -> None:
    assert client.get(f"/posts?after={ORIGINAL.id}&seen={seen}").status_code == 422


def test_what_no_database_can_have_shown_changes_nothing(client: TestClient, store: TimelinesStore) -> None:
    store.add(ORIGINAL)
    store.add(newer := _post())
    seen = Position.parse("1-2-3-4-5")
    for digits in (str(seen), "9" * 19 + "-1-1-1-1", "1-1-" + "9" * 18 + "-0-0"):
        found = client.get(f"/posts?after={ORIGINAL.id}&seen={digits}")

        assert [post["id"] for post in found.json()] == _ids(newer)


def test_bookmarks_of_one_user_commit_in_the_order_of_their_ids(
    store: TimelinesStore, slow: Connection
) -> None:
    store.add(ORIGINAL)
    store.add(other := _post())
    slow.execute(text("SELECT pg_advisory_xact_lock(hashtext('bookmarks'), hashtext('reader'))"))
    second = Thread(target=store.bookmarks.add, args=[other.id, "reader"])
    second.start()
    eventually(lambda: store._database.rows(WAITS, {}))
    first = text("INSERT INTO bookmarks (post_id, username, id) VALUES (:post_id, 'reader', :id)")
    slow.execute(first, {"post_id": ORIGINAL.id, "id": (ahead := _ahead())})
    slow.commit()
    second.join()

    newer = store.bookmarks.page("reader", Page(2, after=ahead))

    assert [post.id for _, post in newer] == [other.id]


def _ahead() -> Any:
    """An id that a clock made that is a day ahead."""
    made = new_id()
    return type(made)(int=made.int + (24 * 3600 * 1000 << 80))
