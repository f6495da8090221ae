"""Who may do what: every route of the API documents, asked by everybody."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from common.fields import EXAMPLE_ID, new_id
from common.tokens import Tokens
from tests.polling import eventually
from tests.suite.conftest import PASSWORD, SECRETS, Suite, is_stream
from tests.tables import require_rows

pytestmark = pytest.mark.starts

HERE = "tests/suite/test_objects.py"

# What is named in the path is the owner's; `nobody` has no token.
ASKERS = ("owner", "other", "nobody", "expired", "service")

FOR_ALL = (200, 200, 200, 200, 200)
FOR_USERS = (200, 200, 401, 401, 403)
FOR_OWNER = (200, 403, 401, 401, 403)
TOKEN_OPTIONAL = (200, 200, 200, 401, 200)
MAKING = (201, 201, 401, 401, 403)
SWITCHING = (204, 204, 401, 401, 403)

# What each of them gets.
STATUSES = {
    "POST /register": (201, 201, 201, 201, 201),
    "POST /login": FOR_ALL,
    "GET /users/{username}": TOKEN_OPTIONAL,
    "POST /logout": (204, 204, 401, 401, 403),
    "PUT /users/{username}/password": (204, 403, 401, 401, 403),
    "POST /users/{username}/deletion": (202, 403, 401, 401, 403),
    "GET /users/{username}/deletion": (404, 403, 401, 401, 404),
    "PATCH /users/{username}": FOR_OWNER,
    "GET /users": FOR_ALL,
    "GET /search/users": TOKEN_OPTIONAL,
    "GET /users/{username}/followers": FOR_ALL,
    "GET /users/{username}/relationships": FOR_OWNER,
    "GET /users/{username}/blocks": FOR_OWNER,
    "GET /users/{username}/mutes": FOR_OWNER,
    "POST /users/block/{username}": (400, 200, 401, 401, 403),
    "POST /users/unblock/{username}": FOR_USERS,
    "POST /users/mute/{username}": (400, 200, 401, 401, 403),
    "POST /users/unmute/{username}": FOR_USERS,
    "POST /users/follow/{username}": (400, 200, 401, 401, 403),
    "POST /users/unfollow/{username}": FOR_USERS,
    "GET /users/{username}/followees": FOR_ALL,
    "POST /posts": MAKING,
    "POST /posts/async": (202, 202, 401, 401, 403),
    "GET /posts": TOKEN_OPTIONAL,
    "GET /posts/counts": FOR_ALL,
    "GET /posts/id/{post_id}": TOKEN_OPTIONAL,
    "PATCH /posts/id/{post_id}": FOR_OWNER,
    "DELETE /posts/id/{post_id}": (204, 403, 401, 401, 403),
    "GET /posts/id/{post_id}/versions": FOR_ALL,
    "GET /posts/id/{post_id}/replies": TOKEN_OPTIONAL,
    "GET /posts/id/{post_id}/context": TOKEN_OPTIONAL,
    "POST /posts/id/{post_id}/repost": MAKING,
    "DELETE /posts/id/{post_id}/repost": FOR_USERS,
    "GET /posts/id/{post_id}/reposters": FOR_ALL,
    "PUT /posts/id/{post_id}/bookmark": SWITCHING,
    "DELETE /posts/id/{post_id}/bookmark": SWITCHING,
    "GET /bookmarks": FOR_USERS,
    "GET /notifications": FOR_USERS,
    "GET /notifications/unread": FOR_USERS,
    "POST /notifications/read": SWITCHING,
    "DELETE /notifications/{notification_id}": (204, 404, 401, 401, 403),
    "GET /search/posts": TOKEN_OPTIONAL,
    "GET /stream": FOR_USERS,
    "GET /tags": FOR_ALL,
    "GET /tags/{tag}": TOKEN_OPTIONAL,
    "PUT /posts/id/{post_id}/pin": (204, 403, 401, 401, 403),
    "DELETE /posts/id/{post_id}/pin": SWITCHING,
    "GET /posts/{username}": TOKEN_OPTIONAL,
    "GET /posts/home/{username}": FOR_OWNER,
    "POST /likes/{post_id}": MAKING,
    "DELETE /likes/{post_id}": FOR_USERS,
    "GET /likes/{post_id}/count": FOR_ALL,
    "GET /likes/{post_id}/users": FOR_ALL,
    "GET /likes": (200, 200, 200, 401, 200),
    "GET /likes/popular": FOR_ALL,
    "GET /users/{username}/likes": FOR_ALL,
    "POST /polls": MAKING,
    "GET /polls": TOKEN_OPTIONAL,
    "DELETE /polls/{poll_id}": (204, 403, 401, 401, 403),
    "GET /polls/{poll_id}": TOKEN_OPTIONAL,
    "POST /polls/{poll_id}/vote": MAKING,
    "GET /polls/{poll_id}/results": FOR_ALL,
}
NEW_POLL = {"question": "Tea?", "options": ["Yes", "No"]}
BODIES: dict[str, dict[str, Any]] = {
    "POST /register": {"password": PASSWORD},
    "POST /login": {"username": "matrix_owner", "password": PASSWORD},
    "PUT /users/{username}/password": {"current_password": PASSWORD, "new_password": "battery staple"},
    "POST /users/{username}/deletion": {"password": PASSWORD},
    "PATCH /users/{username}": {"bio": "Mine."},
    "POST /posts": {"text": "Mine."},
    "POST /posts/async": {"text": "Mine, soon."},
    "PATCH /posts/id/{post_id}": {"text": "Mine, changed."},
    "POST /notifications/read": {"up_to": EXAMPLE_ID},
    "POST /polls": NEW_POLL,
    "POST /polls/{poll_id}/vote": {"option": 0},
}
# What a list asks for: named as in a path, or as it is.
QUERIES = {
    "GET /likes": {"post_id": "post_id"},
    "GET /polls": {"id": "poll_id"},
    "GET /posts/counts": {"username": "username"},
    "GET /search/users": {"q": "matrix"},
    "GET /search/posts": {"q": "matrix"},
}
# Where an answer says whose doing it was. A vote, a deletion and what is only queued do not.
DOERS = {
    "POST /users/follow/{username}": "follower",
    "POST /users/unfollow/{username}": "follower",
    "POST /users/block/{username}": "blocker",
    "POST /users/unblock/{username}": "blocker",
    "POST /users/mute/{username}": "muter",
    "POST /users/unmute/{username}": "muter",
    "POST /posts": "username",
    "POST /posts/id/{post_id}/repost": "username",
    "POST /likes/{post_id}": "username",
    "DELETE /likes/{post_id}": "username",
    "POST /polls": "created_by",
}
SILENT = {
    "POST /posts/async",
    "POST /polls/{poll_id}/vote",
    "POST /logout",
    "PUT /users/{username}/password",
    "POST /users/{username}/deletion",
    "DELETE /polls/{poll_id}",
    "PATCH /users/{username}",
    "PATCH /posts/id/{post_id}",
    "DELETE /posts/id/{post_id}",
    "DELETE /posts/id/{post_id}/repost",
    "PUT /posts/id/{post_id}/bookmark",
    "DELETE /posts/id/{post_id}/bookmark",
    "PUT /posts/id/{post_id}/pin",
    "DELETE /posts/id/{post_id}/pin",
    "POST /notifications/read",
    "DELETE /notifications/{notification_id}",
}
# After these the token, or the password, is another: they get a user of their own.
ENDING = {"POST /logout", "PUT /users/{username}/password", "POST /users/{username}/deletion"}
OPERATIONAL = {"GET /livez", "GET /health"}


def _documented() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call of the four services, and what its document says of it."""
    for service in ("users", "timelines", "likes", "polls"):
        paths = importlib.import_module(f"{service}_service.app").app.openapi()["paths"]
        for path, methods in paths.items():
            for method, operation in methods.items():
                if (call := f"{method.upper()} {path}") not in OPERATIONAL:
                    yield call, operation


DOCUMENTED = dict(_documented())


@dataclass
class World:
    """A post, a poll and a notification of `matrix_owner`, and the headers of everybody who asks for them."""

    suite: Suite
    headers: dict[str, dict[str, str]]
    names: dict[str, str]

    def ask(self, call: str, asker: str, **extra: object) -> httpx2.Response:
        method, path = call.split()
        body = BODIES.get(call)
        if call == "POST /register":
            body = {**BODIES[call], "username": f"m{new_id().hex[8:32]}"}
        json = None if body is None else body | extra
        query = {parameter: self.names.get(name, name) for parameter, name in QUERIES.get(call, {}).items()}
        headers = self.headers[asker]
        gateway = self.suite.gateway
        request = gateway.build_request(
            method, path.format(**self.names), json=json, params=query, headers=headers
        )
        answer = gateway.send(request, stream=True)
        if not is_stream(answer):
            answer.read()
        answer.close()
        return answer


@pytest.fixture(scope="session")
def headers(suite: Suite) -> dict[str, dict[str, str]]:
    expired = Tokens(SECRETS["JWT_SECRET"], "HS256", timedelta(seconds=-1)).issue("matrix_owner")
    service = suite.tokens.issue_for_service("likes")
    return {
        "owner": suite.sign_up("matrix_owner"),
        "other": suite.sign_up("matrix_other"),
        "nobody": {},
        "expired": {"Authorization": f"Bearer {expired}"},
        "service": {"Authorization": f"Bearer {service}"},
    }


@pytest.fixture
def passing(world: World) -> World:
    """The same with an owner who is there for one test only."""
    name = f"m{new_id().hex[8:32]}"
    headers = world.headers | {"owner": world.suite.sign_up(name), "other": world.suite.sign_up(f"{name}_")}
    return World(world.suite, headers, world.names | {"username": name})


@pytest.fixture
def world(suite: Suite, headers: dict[str, dict[str, str]]) -> World:
    post = suite.gateway.post("/posts", json={"text": "The owner's."}, headers=headers["owner"]).json()
    poll = suite.gateway.post("/polls", json=NEW_POLL, headers=headers["owner"]).json()
    # The test before may have been that of a block, which forbids replies.
    suite.gateway.post("/users/unblock/matrix_owner", headers=headers["other"]).raise_for_status()
    answer = {"text": "The other's.", "in_reply_to": post["id"]}
    suite.gateway.post("/posts", json=answer, headers=headers["other"]).raise_for_status()
    [notification] = suite.gateway.get("/notifications?limit=1", headers=headers["owner"]).json()
    names = {
        "tag": "matrix",
        "username": "matrix_owner",
        "post_id": post["id"],
        "poll_id": poll["id"],
        "notification_id": notification["id"],
    }
    return World(suite, headers, names)


def test_every_route_is_asked_by_everybody() -> None:
    require_rows(f"STATUSES in {HERE}, with the status that each of {ASKERS} gets", STATUSES, DOCUMENTED)


def test_every_write_is_known_to_say_whose_it_is_or_not_to() -> None:
    writes = {call for call, operation in DOCUMENTED.items() if "GET" not in call and "security" in operation}

    place = f"DOERS in {HERE}, with the field that names the user (or to SILENT, and write a test of its own)"
    require_rows(place, DOERS.keys() | SILENT, writes)


def test_every_body_is_known() -> None:
    calls = [call for call, operation in DOCUMENTED.items() if "requestBody" in operation]
    require_rows(f"BODIES in {HERE}, with a body that is accepted", BODIES, calls)


@pytest.mark.parametrize(
    ("call", "asker", "status"),
    [
        (call, asker, status)
        for call, row in STATUSES.items()
        for asker, status in zip(ASKERS, row, strict=True)
    ],
)
def test_each_gets_what_is_theirs(
    world: World, request: pytest.FixtureRequest, call: str, asker: str, status: int
) -> None:
    if call in ENDING:
        world = request.getfixturevalue("passing")
    answer = world.ask(call, asker)

    assert answer.status_code == status
    assert str(status) in DOCUMENTED[call]["responses"], f"add {status} to the route's responses=problems(…)"
    assert ("WWW-Authenticate" in answer.headers) is (status == 401)


@pytest.mark.parametrize("call", DOERS)
def test_a_write_is_its_tokens_subjects(world: World, call: str) -> None:
    assert world.ask(call, "other").json()[DOERS[call]] == "matrix_other"


def test_a_token_that_was_signed_out_is_refused_everywhere(passing: World) -> None:
    passing.ask("POST /logout", "owner")
    _assert_refused_everywhere(passing)


def test_after_a_new_password_a_token_of_before_is_refused_everywhere(passing: World) -> None:
    passing.ask("PUT /users/{username}/password", "owner")
    _assert_refused_everywhere(passing)


def test_the_last_token_of_a_deleted_account_says_how_far_that_is_and_is_refused_everywhere(
    passing: World,
) -> None:
    passing.ask("POST /users/{username}/deletion", "owner")
    _assert_refused_everywhere(passing)

    assert passing.ask("GET /users/{username}/deletion", "owner").status_code == 200


def _assert_refused_everywhere(world: World) -> None:
    for call in ("GET /users/{username}", "POST /posts", "POST /likes/{post_id}", "GET /polls/{poll_id}"):
        eventually(lambda call=call: world.ask(call, "owner").status_code == 401)


def test_a_queued_post_is_its_tokens_subjects(world: World) -> None:
    queued = world.ask("POST /posts/async", "other")

    assert world.suite.see(queued.headers["Location"])["username"] == "matrix_other"


def test_a_vote_is_its_tokens_subjects(world: World) -> None:
    world.ask("POST /polls/{poll_id}/vote", "other")

    assert world.ask("GET /polls/{poll_id}", "other").json()["voted"] == 0
    assert world.ask("GET /polls/{poll_id}", "owner").json()["voted"] is None


def test_a_poll_is_deleted_for_its_owner_only(world: World) -> None:
    refused = world.ask("DELETE /polls/{poll_id}", "other")
    before = world.ask("GET /polls/{poll_id}", "other")
    world.ask("DELETE /polls/{poll_id}", "owner")
    after = world.ask("GET /polls/{poll_id}", "other")

    assert [one.status_code for one in (refused, before, after)] == [403, 200, 404]


@pytest.mark.parametrize("call", BODIES)
@pytest.mark.parametrize("field", ["unexpected", "created_by", "id", "is_admin", "__proto__"])
def test_a_field_that_is_not_asked_for_is_422(world: World, call: str, field: str) -> None:
    answer = world.ask(call, "owner", **{field: "matrix_other"})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"#/{field}")
