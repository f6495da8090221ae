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
from timelines_service.clients import MAX_FOLLOWEES, Followees, FolloweesCache, UsersClient

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


def listed(*usernames: str, etag: str = '"1"') -> Followees:
    return Followees(usernames, etag)


def test_all_followees_are_asked_for(asking) -> None:
    asked: list[httpx.URL] = []

    def response(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json=["bobby", "carol"])

    assert asking(response).followees("alice") == ("bobby", "carol")
    assert asked[0].raw_path == f"/users/alice/followees?limit={MAX_FOLLOWEES}".encode()


def test_a_list_without_a_tag_is_asked_for_again(asking) -> None:
    lists = [["bobby"], ["carol"]]
    users = asking(lambda _: httpx.Response(200, json=lists.pop()))

    assert [users.followees("alice"), users.followees("alice")] == [("carol",), ("bobby",)]


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
        httpx.Response(200, json={"followees": []}),
        httpx.Response(200, json=["bobby", 1]),
        httpx.Response(200, json=['bobby","carol']),
        httpx.Response(200, json=["{bobby}"]),
    ],
    ids=lambda response: f"{response.status_code} {response.text}",
)
def test_an_answer_out_of_place_is_no_list(asking, response: httpx.Response) -> None:
    users = asking(lambda _: httpx.Response(response.status_code, content=response.content))

    with pytest.raises(Unavailable):
        users.followees("alice")


def test_who_is_gone_has_no_list_any_more(asking) -> None:
    answers = [httpx.Response(404), httpx.Response(200, json=["bobby"], headers={"ETag": '"1"'})]
    users = asking(lambda _: answers.pop())
    users.followees("alice")

    with pytest.raises(NotFound):
        users.followees("alice")


def test_whether_there_is_a_user_is_told_by_200_and_404(asking) -> None:
    users = asking(lambda request: httpx.Response(200 if request.url.path == "/users/alice" else 404))

    assert users.exists("alice")
    assert not users.exists("nobody")


@pytest.mark.parametrize("status", [304, 401, 422, 429, 500, 503])
def test_anything_else_does_not_tell_whether_there_is_a_user(asking, status: int) -> None:
    with pytest.raises(Unavailable):
        asking(lambda _: httpx.Response(status)).exists("alice")


def test_the_lists_of_those_who_asked_last_are_kept() -> None:
    cache = FolloweesCache(max_lists=2)
    cache.put("alice", listed("x"))
    cache.put("bobby", listed("y"))
    cache.get("alice")

    cache.put("carol", listed("z"))

    assert [name for name in ("alice", "bobby", "carol") if cache.get(name)] == ["alice", "carol"]


def test_no_more_names_are_kept_than_there_is_room_for() -> None:
    cache = FolloweesCache(max_names=5)
    cache.put("alice", listed(*"abc"))
    cache.put("bobby", listed(*"de"))

    cache.put("alice", listed(*"abcd"))

    assert cache.get("bobby") is None
    assert cache.get("alice") == listed(*"abcd")


def test_a_list_larger_than_the_room_is_not_kept() -> None:
    cache = FolloweesCache(max_names=2)

    cache.put("alice", listed(*"abc"))

    assert cache.get("alice") is None


def test_threads_may_share_the_recent_lists() -> None:
    cache = FolloweesCache(max_lists=7, max_names=50)

    def keep_and_get(number: int) -> None:
        cache.put(f"user{number % 20}", listed(*(["x"] * (number % 13))))
        cache.get(f"user{number * 7 % 20}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(keep_and_get, range(4000)))

    kept = [len(followees.usernames) for followees in cache._lists.values()]
    assert len(kept) <= 7
    assert cache._names == sum(kept) <= 50
