"""Every bad token at every service: the same refusal, and never an error."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.tokens import Tokens
from likes_service.app import create_app as likes
from likes_service.settings import LikesSettings
from polls_service.app import create_app as polls
from polls_service.settings import PollsSettings
from registry_service.app import create_app as registry
from registry_service.settings import RegistrySettings
from tests.tokens import BAD, GOOD
from timelines_service.app import create_app as timelines
from timelines_service.settings import TimelinesSettings
from users_service.app import create_app as users
from users_service.settings import UsersSettings

ID = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"

# A service, and routes of it where a token is needed, or looked at if there is one.
PROTECTED: dict[str, tuple[Callable[[], FastAPI], list[str]]] = {
    "users": (
        lambda: users(UsersSettings(_env_file=None)),
        ["POST /users/follow/alice", "GET /users/alice", "GET /users/alice/deletion"],
    ),
    "timelines": (
        lambda: timelines(TimelinesSettings(_env_file=None)),
        ["POST /posts", "GET /posts/home/alice"],
    ),
    "likes": (lambda: likes(LikesSettings(_env_file=None)), [f"POST /likes/{ID}"]),
    "polls": (lambda: polls(PollsSettings(_env_file=None)), ["POST /polls", f"GET /polls/{ID}"]),
    "registry": (
        lambda: registry(RegistrySettings(_env_file=None, registry_token="registry-token")),
        ["POST /register", "DELETE /deregister/1"],
    ),
}
REFUSAL = {
    "type": "about:blank",
    "title": "Unauthorized",
    "status": 401,
    "detail": "The token has expired, or this suite did not issue it.",
    "code": "invalid_token",
}
# Its token is another thing than theirs, and so is what it says of it.
REGISTRYS = REFUSAL | {"detail": "This is not this registry's REGISTRY_TOKEN."}


@pytest.fixture(scope="module", params=PROTECTED)
def service(request: pytest.FixtureRequest) -> Iterator[tuple[TestClient, list[str]]]:
    """A client of a service that has nothing behind it: a bad token gets no further than the door."""
    make, routes = PROTECTED[request.param]
    client = TestClient(make(), client=("127.0.0.1", 1))
    yield client, routes
    client.close()


@pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
def test_a_bad_token_is_401_in_the_same_words_everywhere(
    service: tuple[TestClient, list[str]], token: str
) -> None:
    client, routes = service
    for route in routes:
        answer = client.request(*route.split(), headers={"Authorization": f"Bearer {token}".encode()})
        problem: dict[str, Any] = answer.json()

        assert problem.pop("request_id")
        assert problem == (REGISTRYS if "register" in route else REFUSAL)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_good_token_that_the_bad_ones_are_made_of_is_good(tokens: Tokens) -> None:
    assert tokens.subject(GOOD) == "alice"


def test_there_are_enough_bad_tokens() -> None:
    assert len(set(BAD.values())) == len(BAD) >= 60
