"""What timelines make of what the users service says."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from common.discovery.client import ServiceClient
from common.discovery.directory import Directory
from common.discovery.models import Snapshot
from common.errors import NotFound, Unavailable
from common.tokens import Tokens
from tests.instances import instance
from tests.timelines_service.conftest import problem_response
from timelines_service.clients import MAX_FOLLOWEES, CachedSources, HomeSources, SourcesCache, UsersClient

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def asking(tokens: Tokens) -> Callable[[Answer], UsersClient]:
    """Makes a client of a users service that answers like this."""
    directory = Directory(None)
    directory.update(Snapshot(epoch="e", version=1, services={"users": (instance(1),)}), now=0)

    def make(response: Answer) -> UsersClient:
        transport = httpx.MockTransport(response)
        return UsersClient(ServiceClient("users", directory, tokens, "timelines", transport))

    return make


def listed(*usernames: str, etag: str = '"1"') -> CachedSources:
    return CachedSources(etag, HomeSources(followees=[f"user{name}" for name in usernames]))


def test_the_sources_are_followees_and_hidden(asking) -> None:
    body = {"followees": ["bobby", "carol"], "hidden": ["carol"]}
    sources = asking(lambda _: httpx.Response(200, json=body)).home_sources("alice")

    assert (sources.followees, sources.hidden) == (("bobby", "carol"), ("carol",))


def test_a_users_service_of_the_last_version_is_asked_for_all_followees(asking) -> None:
    asked: list[bytes] = []

    def response(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        if request.url.path.endswith("/home-sources"):
            return problem_response(404, "not_found")
        return httpx.Response(200, json=["bobby", "carol"])

    sources = asking(response).home_sources("alice")

    assert (sources.followees, sources.hidden) == (("bobby", "carol"), ())
    assert asked[1] == f"/users/alice/followees?limit={MAX_FOLLOWEES}".encode()


def test_a_tag_of_the_followees_alone_is_no_tag_of_the_sources(asking) -> None:
    is_of_last_version = True
    tags: list[str | None] = []

    def response(request: httpx.Request) -> httpx.Response:
        tags.append(request.headers.get("if-none-match"))
        if not request.url.path.endswith("/home-sources"):
            return httpx.Response(200, json=["bobby"], headers={"ETag": '"1"'})
        if is_of_last_version:
            return problem_response(404, "not_found")
        body = {"followees": ["bobby"], "hidden": ["carol"]}
        return httpx.Response(200, json=body, headers={"ETag": '"1"'})

    users = asking(response)
    users.home_sources("alice")
    is_of_last_version = False

    assert users.home_sources("alice").hidden == ("carol",)
    assert tags == [None, None, None]


def test_a_list_without_a_tag_is_asked_for_again(asking) -> None:
    lists = [["bobby"], ["carol"]]
    users = asking(lambda _: httpx.Response(200, json={"followees": lists.pop()}))

    assert [users.home_sources("alice").followees for _ in "ab"] == [("carol",), ("bobby",)]


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(304),
        httpx.Response(400),
        httpx.Response(401),
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(200),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json=["bobby"]),
        httpx.Response(200, json={"followees": ["bobby", 1]}),
        httpx.Response(200, json={"followees": ['bobby","carol']}),
        httpx.Response(200, json={"followees": [], "hidden": ["{bobby}"]}),
    ],
    ids=lambda response: f"{response.status_code} {response.text}",
)
def test_an_answer_out_of_place_is_no_list(asking, response: httpx.Response) -> None:
    users = asking(lambda _: httpx.Response(response.status_code, content=response.content))

    with pytest.raises(Unavailable):
        users.home_sources("alice")


def test_who_is_gone_has_no_list_any_more(asking) -> None:
    known = httpx.Response(200, json={"followees": ["bobby"]}, headers={"ETag": '"1"'})
    answers = [httpx.Response(404), known]
    users = asking(lambda _: answers.pop())
    users.home_sources("alice")

    with pytest.raises(NotFound):
        users.home_sources("alice")


def test_whether_there_is_a_user_is_told_by_200_and_404(asking) -> None:
    users = asking(lambda request: httpx.Response(200 if request.url.path == "/users/alice" else 404))

    assert users.exists("alice")
    assert not users.exists("nobody")


@pytest.mark.parametrize("status", [304, 401, 422, 429, 500, 503])
def test_anything_else_does_not_tell_whether_there_is_a_user(asking, status: int) -> None:
    with pytest.raises(Unavailable):
        asking(lambda _: httpx.Response(status)).exists("alice")


def test_the_lists_of_those_who_asked_last_are_kept() -> None:
    cache = SourcesCache(max_lists=2)
    cache.put("alice", listed("x"))
    cache.put("bobby", listed("y"))
    cache.get("alice")

    cache.put("carol", listed("z"))

    assert [name for name in ("alice", "bobby", "carol") if cache.get(name)] == ["alice", "carol"]


def test_no_more_names_are_kept_than_there_is_room_for() -> None:
    cache = SourcesCache(max_names=5)
    cache.put("alice", listed(*"abc"))
    cache.put("bobby", listed(*"de"))

    cache.put("alice", listed(*"abcd"))

    assert cache.get("bobby") is None
    assert cache.get("alice") == listed(*"abcd")


def test_a_list_larger_than_the_room_is_not_kept() -> None:
    cache = SourcesCache(max_names=2)

    cache.put("alice", listed(*"abc"))

    assert cache.get("alice") is None


def test_threads_may_share_the_recent_lists() -> None:
    cache = SourcesCache(max_lists=7, max_names=50)

    def keep_and_get(number: int) -> None:
        cache.put(f"user{number % 20}", listed(*(["x"] * (number % 13))))
        cache.get(f"user{number * 7 % 20}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(keep_and_get, range(4000)))

    kept = [cached.names for cached in cache._lists.values()]
    assert len(kept) <= 7
    assert cache._names == sum(kept) <= 50
