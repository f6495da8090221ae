"""Posts found by their words."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import permutations
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import TextClause, text

from common.fields import new_id
from tests.pages import pages
from tests.timelines_service.conftest import Users
from timelines_service import post_search
from timelines_service.events import AccountDeleted
from timelines_service.full_text import document
from timelines_service.models import AcceptedPost
from timelines_service.post_query import Page
from timelines_service.store import TimelinesStore

Headers = Callable[[str], dict[str, str]]
Write = Callable[..., dict[str, Any]]


@pytest.fixture
def write(client: TestClient, as_user: Headers) -> Write:
    def write(text: str, username: str = "alice", **fields: object) -> dict[str, Any]:
        written = client.post("/posts", json={"text": text, **fields}, headers=as_user(username))
        assert written.status_code == 201, written.text
        post: dict[str, Any] = written.json()
        return post

    return write


def found(client: TestClient, q: str, headers: dict[str, str] | None = None) -> list[str]:
    answer = client.get("/search/posts", params={"q": q}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [post["text"] for post in answer.json()]


@pytest.fixture(params=["in order", "within reach", "by index", "by samples"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way in which the posts of a page are found."""
    if request.param != "in order":
        monkeypatch.setattr(post_search, "WINDOW", 2 if request.param == "within reach" else 0)
        monkeypatch.setattr(post_search, "ENOUGH", 1)
    if request.param in ("within reach", "by samples"):
        monkeypatch.setattr(post_search, "FEW", 0)
        # Each post is in the only sample.
        monkeypatch.setattr(post_search, "OF_SAMPLES", [post_search.OF_SOME_TIME])


TEXTS = ["Black tea, with milk", "Green tea", "Milk and tea", "Coffee à la crème"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("q", "places"),
    [
        ("tea", [2, 1, 0]),
        ("TEA", [2, 1, 0]),
        ("milk tea", [2, 0]),
        ('"black tea"', [0]),
        ('"tea black"', []),
        ('"tea with milk"', [0]),
        ("tea -milk", [1]),
        ('tea -"with milk"', [2, 1]),
        ("-tea", [3]),
        ("-milk -coffee", [1]),
        ("coffee or green", [3, 1]),
        ("CREME A", [3]),
        ("crème", [3]),
        ("te", []),
        ("tea coffee", []),
    ],
)
def test_posts_are_found_by_their_words(client: TestClient, write: Write, q: str, places: list[int]) -> None:
    for one in TEXTS:
        write(one)

    assert found(client, q) == [TEXTS[place] for place in places]


@pytest.mark.parametrize(
    ("written", "q"),
    [
        ("हिन्दी में लिखा", "हिन्दी"),
        ("ภาษาไทย ที่นี่", "ที่นี่"),
        ("Straße", "STRASSE"),
        ("\uff26\uff35\uff2c\uff2c width", "full"),
        ("naïve", "naive"),
        ("it's #sunny, isn't it?", "sunny"),
        ("don't", "don't"),
        ("see https://example.com/a_page", "example"),
        ("1.5 litres", "1.5"),
        ("back\\slash 'quote", "slash quote"),
    ],
)
def test_words_of_any_script_are_found(client: TestClient, write: Write, written: str, q: str) -> None:
    write(written)
    write("something else")

    assert found(client, q) == [written]


@pytest.mark.parametrize("q", ["-", '"', "' \\ &", "😀", "or", "<->", ":*", "%"])
def test_a_query_without_words_finds_nothing(client: TestClient, write: Write, q: str) -> None:
    write("or - 😀 & ' \\ %")

    assert found(client, q) == []


def test_a_query_that_is_all_syntax_is_answered(client: TestClient, write: Write) -> None:
    write("tea")

    for q in map(" ".join, permutations(["-", '"', "or", "tea", "!", "'"], 4)):
        assert found(client, q) in ([], ["tea"])


@pytest.mark.parametrize("q", ["", "x" * 201, None])
def test_a_query_has_1_to_200_characters(client: TestClient, q: str | None) -> None:
    assert client.get("/search/posts", params={"q": q} if q is not None else {}).status_code == 422


def test_a_repost_and_an_unlisted_post_are_not_found(
    client: TestClient, write: Write, as_user: Headers
) -> None:
    post = write("tea at home")
    write("tea in secret", visibility="unlisted")
    client.post(f"/posts/id/{post['id']}/repost", headers=as_user("bobby"))

    assert found(client, "tea") == ["tea at home"]


def test_an_edited_post_is_found_by_its_new_text(client: TestClient, write: Write, as_user: Headers) -> None:
    for visibility in ("public", "unlisted"):
        post = write("tea", visibility=visibility)
        client.patch(f"/posts/id/{post['id']}", json={"text": "coffee"}, headers=as_user("alice"))

    assert (found(client, "tea"), found(client, "coffee")) == ([], ["coffee"])


def test_a_deleted_post_is_not_found(client: TestClient, write: Write, as_user: Headers) -> None:
    post = write("tea")
    client.delete(f"/posts/id/{post['id']}", headers=as_user("alice"))

    assert found(client, "tea") == []


def test_a_queued_post_is_found(client: TestClient, store: TimelinesStore) -> None:
    store.add_missing([AcceptedPost(id=new_id(), username="alice", text="tea", created_at=datetime.now(UTC))])

    assert found(client, "tea") == ["tea"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("q", ["tea", "-coffee", "tea 3"])
def test_pages_have_every_post_once_either_way(client: TestClient, write: Write, q: str) -> None:
    for number in range(7):
        write(f"tea {number} {number % 2 * 3}")
        write(f"coffee {number}")
    everything = found(client, q)

    older = list(pages(client, f"/search/posts?{urlencode({'q': q, 'limit': 2})}"))
    newer = list(pages(client, str(older[-1].request.url), "prev"))

    assert [post["text"] for page in older for post in page.json()] == everything
    assert [post["text"] for page in reversed(newer) for post in page.json()] == everything


@pytest.mark.usefixtures("way")
def test_posts_of_an_account_that_is_being_deleted_take_no_place_on_a_page(
    client: TestClient, write: Write, store: TimelinesStore
) -> None:
    for username in ("alice", "bobby", "alice", "bobby"):
        write("tea", username=username)
    store.events.apply(AccountDeleted(kind="account_deleted", username="bobby", at=datetime.now(UTC)))
    page = client.get("/search/posts?q=tea&limit=2")

    assert [post["username"] for post in page.json()] == ["alice", "alice"]


def test_a_reader_does_not_see_the_hidden(
    client: TestClient, write: Write, as_user: Headers, users: Users
) -> None:
    users.followees["carol"], users.hidden["carol"] = [], ["bobby"]
    write("tea of alice")
    write("tea of bobby", username="bobby")

    assert found(client, "tea", as_user("carol")) == ["tea of alice"]
    assert found(client, "tea") == ["tea of bobby", "tea of alice"]


def test_the_hidden_stay_hidden_while_the_users_service_is_away(
    client: TestClient, write: Write, as_user: Headers, users: Users
) -> None:
    users.followees["carol"], users.hidden["carol"] = [], ["bobby"]
    write("tea", username="bobby")
    found(client, "tea", as_user("carol"))
    users.is_away = True

    assert found(client, "tea", as_user("carol")) == []
    assert found(client, "tea") == ["tea"]


def test_without_the_users_service_a_new_reader_learns_nothing(
    client: TestClient, write: Write, as_user: Headers, users: Users
) -> None:
    write("tea")
    users.is_away = True

    assert client.get("/search/posts?q=tea", headers=as_user("carol")).status_code == 503


def test_a_reader_sees_what_they_have_done_with_a_post(
    client: TestClient, write: Write, as_user: Headers
) -> None:
    post = write("tea")
    client.put(f"/posts/id/{post['id']}/bookmark", headers=as_user("bobby"))

    [shown] = client.get("/search/posts?q=tea", headers=as_user("bobby")).json()

    assert (shown["bookmarked"], shown["reposted"], shown["pinned"]) == (True, False, False)


# Posts a minute apart, the newest one now; one in 256 and one in 4096 are in the samples.
ADD_SOME = text("""
    INSERT INTO posts (id, username, text, created_at, words)
    SELECT CAST(lpad(to_hex(:now - n * 60000), 12, '0') || '70008' || lpad(to_hex(n), 15, '0') AS uuid),
        'alice', n, now(), CAST(CASE WHEN n < :newest THEN '''*''' ELSE '''*'' ''tea''' END AS tsvector)
    FROM generate_series(:first, :first + 499) AS n
""")


@pytest.fixture
def newest(store: TimelinesStore, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of how many newest posts none has a word that all of the other 2,700 have."""
    newest, now = 300, int(datetime.now(UTC).timestamp() * 1000)
    monkeypatch.setattr(post_search, "WINDOW", 200)
    for first in range(0, 3000, 500):
        store._database.rows(ADD_SOME, {"now": now, "newest": newest, "first": first})
    return newest


def test_a_word_of_old_posts_takes_a_few_statements(
    store: TimelinesStore, newest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = []
    run = store._database.rows

    def rows(statement: Any, values: Any) -> list[Any]:
        statements.append(statement)
        return run(statement, values)

    monkeypatch.setattr(store._database, "rows", rows)
    page = store.search.posts("tea", Page(20), None)

    assert [post.text for post in page] == [str(newest + number) for number in range(20)]
    assert len(statements) < 10


OF_LAST_VERSION = text(
    "INSERT INTO posts (id, username, text, created_at) VALUES (:id, 'alice', :text, now())"
)


def _of_last_version(store: TimelinesStore, texts: Sequence[str]) -> None:
    for one in texts:
        store._database.rows(OF_LAST_VERSION, {"id": new_id(), "text": one})


def test_a_post_of_the_last_version_is_found_when_the_worker_has_indexed_it(
    store: TimelinesStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post_search, "BATCH", 2)
    _of_last_version(store, ["Tea, please", "'quoted' \\ tea", "", "tea"])

    while store.search.index_missing():
        pass

    assert len(store.search.posts("tea", Page(9), None)) == 3
    assert len(store.search.posts('"tea please"', Page(9), None)) == 1
    assert not store.search.index_missing()


def test_a_document_is_what_postgresql_keeps(store: TimelinesStore) -> None:
    [(kept,)] = store._database.rows(
        text("SELECT CAST(:document AS tsvector)"), {"document": document("a b a", UUID(int=0))}
    )

    assert kept == "'*' '*00000000' 'a':1,3 'b':2"


@pytest.mark.usefixtures("newest")
def test_each_statement_has_its_index(store: TimelinesStore) -> None:
    values = {"query": "'tea'", "times": "{019e}", "low": UUID(int=0), "high": new_id(), "is_forward": False}
    values |= {"hidden": "{}", "limit": 1, "few": 1}
    store._database.rows(text("ANALYZE posts"), {})

    def index_of(statement: TextClause) -> str:
        plan = str(store._database.rows(text(f"EXPLAIN {statement.text}"), values))
        return plan.partition("Bitmap Index Scan on posts_")[2].split()[0]

    assert index_of(post_search.OF_ALL) == "words_by_time"
    assert index_of(post_search.OF_SOME_TIME) == "words_by_time"
    assert [*map(index_of, post_search.OF_SAMPLES)] == ["words_in_4096", "words_in_256"]
    assert index_of(post_search.SAMPLED) == "words_in_256"
