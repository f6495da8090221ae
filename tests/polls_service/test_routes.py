"""What the polls service answers."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import server_processes
from botocore.awsrequest import AWSResponse
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.api.routing import MAX_BODY_BYTES
from common.fields import new_id
from polls_service import dynamodb
from polls_service.app import create_app
from polls_service.models import NewPoll
from polls_service.settings import PollsSettings
from polls_service.store import PollsStore
from tests.own_server import Own
from tests.polling import eventually

Headers = Callable[[str], dict[str, str]]
JSON = {"Content-Type": "application/json"}
UNKNOWN = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"


@pytest.fixture
def poll(client: TestClient, as_user: Headers) -> dict[str, Any]:
    body = {"question": " Tea? ", "options": ["Yes", "No"]}
    created: dict[str, Any] = client.post("/polls", json=body, headers=as_user("alice")).json()
    return created


def test_a_poll_is_created_where_its_location_says(client: TestClient, as_user: Headers) -> None:
    body = {"question": " Tea? ", "options": ["Yes ", "No"]}
    created = client.post("/polls", json=body, headers=as_user("alice"))

    assert created.status_code == 201
    assert client.get(created.headers["Location"]).json() == created.json()
    assert (created.json()["question"], created.json()["options"]) == ("Tea?", ["Yes", "No"])


@pytest.mark.parametrize(
    "body",
    [
        {"question": "😀" * 280, "options": ["😀" * 100, "x" * 100]},
        {"question": "?", "options": [str(number) for number in range(10)]},
        {
            "question": "\U0001f1f3\U0001f1f4" * 280,
            "options": [f"{n}\u0301" + "\u0301" * 2046 for n in range(10)],
        },
        {"question": "Tea,\n\tor what?", "options": ["a", "A"]},
    ],
)
def test_a_poll_at_its_limits_is_created(client: TestClient, as_user: Headers, body: dict[str, Any]) -> None:
    created = client.post("/polls", json=body, headers=as_user("alice")).json()

    assert {key: created[key] for key in body} == body
    assert client.get(f"/polls/{created['id']}").json() == created


def test_the_location_of_a_new_poll_is_documented(client: TestClient) -> None:
    call = client.get("/openapi.json").json()["paths"]["/polls"]["post"]

    assert "Location" in call["responses"]["201"]["headers"]


def test_a_poll_says_who_asked_and_when(poll: dict[str, Any]) -> None:
    assert poll["created_by"] == "alice"
    assert poll["created_at"].endswith("Z")


def test_without_a_token_a_poll_says_nothing_of_votes(client: TestClient, poll: dict[str, Any]) -> None:
    assert "voted" not in client.get(f"/polls/{poll['id']}").json()


def test_with_a_token_a_poll_says_what_one_voted(
    client: TestClient, poll: dict[str, Any], as_user: Headers
) -> None:
    before = client.get(f"/polls/{poll['id']}", headers=as_user("bob")).json()
    client.post(f"/polls/{poll['id']}/vote", json={"option": 1}, headers=as_user("bob"))
    after = client.get(f"/polls/{poll['id']}", headers=as_user("bob")).json()

    assert (before["voted"], after["voted"]) == (None, 1)


def test_a_vote_is_counted(client: TestClient, poll: dict[str, Any], as_user: Headers) -> None:
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": 1}, headers=as_user("bob"))

    assert (voted.status_code, voted.json()) == (201, {"poll_id": poll["id"], "option": 1})
    assert client.get(f"/polls/{poll['id']}/results").json() == {
        "poll_id": poll["id"],
        "question": "Tea?",
        "total_votes": 1,
        "results": [{"option": 0, "text": "Yes", "votes": 0}, {"option": 1, "text": "No", "votes": 1}],
    }


def test_a_second_vote_is_409(client: TestClient, poll: dict[str, Any], as_user: Headers) -> None:
    votes = [
        client.post(f"/polls/{poll['id']}/vote", json={"option": option}, headers=as_user("bob"))
        for option in (0, 1)
    ]

    assert votes[1].status_code == 409
    assert votes[1].json()["code"] == "already_voted"


def test_an_option_out_of_range_is_400(client: TestClient, poll: dict[str, Any], as_user: Headers) -> None:
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": 2}, headers=as_user("bob"))

    assert (voted.status_code, voted.json()["code"]) == (400, "option_out_of_range")


@pytest.mark.parametrize("option", [-1, "0", 0.5, 1.0, True, None, [0], 10**30])
def test_what_is_no_index_is_422(
    client: TestClient, poll: dict[str, Any], as_user: Headers, option: object
) -> None:
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": option}, headers=as_user("bob"))

    assert voted.status_code == 422


def test_a_vote_says_nothing_but_the_option(
    client: TestClient, poll: dict[str, Any], as_user: Headers
) -> None:
    vote = {"option": 0, "username": "carol"}

    assert client.post(f"/polls/{poll['id']}/vote", json=vote, headers=as_user("bob")).status_code == 422


def test_results_do_not_say_who_voted(client: TestClient, poll: dict[str, Any], as_user: Headers) -> None:
    client.post(f"/polls/{poll['id']}/vote", json={"option": 0}, headers=as_user("bob"))

    assert "bob" not in client.get(f"/polls/{poll['id']}/results", headers=as_user("alice")).text
    assert "bob" not in client.get(f"/polls/{poll['id']}", headers=as_user("alice")).text


@pytest.mark.parametrize("path", ["/polls", f"/polls/{UNKNOWN}/vote"])
def test_a_large_body_is_413(client: TestClient, as_user: Headers, path: str) -> None:
    body = b" " * (MAX_BODY_BYTES + 1)

    assert client.post(path, content=body, headers=as_user("bob") | JSON).status_code == 413


@pytest.mark.parametrize("path", ["/polls", f"/polls/{UNKNOWN}/vote"])
def test_a_body_of_another_type_is_415(client: TestClient, as_user: Headers, path: str) -> None:
    headers = as_user("bob") | {"Content-Type": "text/plain"}

    assert client.post(path, content=b"{}", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        {"question": "", "options": ["a", "b"]},
        {"question": "x" * 281, "options": ["a", "b"]},
        {"question": "Tea?\x00", "options": ["a", "b"]},
        {"question": "Tea?", "options": ["a"]},
        {"question": "Tea?", "options": [str(number) for number in range(11)]},
        {"question": "Tea?", "options": ["a", " a"]},
        {"question": "Tea?", "options": ["a", " "]},
        {"question": "\u2060\u115f", "options": ["a", "b"]},
        {"question": "Tea?", "options": ["a", "\ufe0f\u0301"]},
        {"question": "Tea?", "options": ["a", "x" * 101]},
        {"question": "Tea?", "options": ["a", "b"], "created_by": "bob"},
        {"question": "Tea?"},
        [],
    ],
)
def test_a_malformed_poll_is_422(client: TestClient, as_user: Headers, body: object) -> None:
    assert client.post("/polls", json=body, headers=as_user("alice")).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/results"), ("POST", "/vote"), ("DELETE", "")]
)
def test_an_unknown_poll_is_404(client: TestClient, as_user: Headers, method: str, path: str) -> None:
    body = {"option": 0} if method == "POST" else None
    response = client.request(method, f"/polls/{UNKNOWN}{path}", json=body, headers=as_user("bob"))

    assert (response.status_code, response.json()["code"]) == (404, "poll_not_found")


def test_an_id_may_be_written_in_capitals(client: TestClient, poll: dict[str, Any]) -> None:
    assert client.get(f"/polls/{poll['id'].upper()}").json() == poll


@pytest.mark.parametrize("poll_id", ["1", UNKNOWN.replace("-", ""), f"{{{UNKNOWN}}}"])
def test_a_malformed_id_is_422(client: TestClient, poll_id: str) -> None:
    assert client.get(f"/polls/{poll_id}").status_code == 422


@pytest.mark.parametrize("path", ["/polls", f"/polls/{UNKNOWN}/vote"])
def test_writing_without_a_token_is_401(client: TestClient, path: str) -> None:
    response = client.post(path, content=b"{")

    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_bad_token_is_401_where_a_token_is_optional(client: TestClient, poll: dict[str, Any]) -> None:
    assert client.get(f"/polls/{poll['id']}", headers={"Authorization": "Bearer x"}).status_code == 401


def test_services_ask_and_vote_nothing(client: TestClient, poll: dict[str, Any], as_service: Headers) -> None:
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": 0}, headers=as_service("likes"))
    question = {"question": "Tea?", "options": ["Yes", "No"]}

    assert voted.status_code == 403
    assert client.post("/polls", json=question, headers=as_service("likes")).status_code == 403


def _vote(client: TestClient, poll_id: object, headers: dict[str, str], **choice: object) -> Any:
    return client.post(f"/polls/{poll_id}/vote", json=choice, headers=headers)


@pytest.fixture
def several(client: TestClient, as_user: Headers) -> dict[str, Any]:
    """A poll in which one vote may be for several options."""
    body = {"question": "Tea?", "options": ["Black", "Green", "White"], "multiple": True}
    created: dict[str, Any] = client.post("/polls", json=body, headers=as_user("alice")).json()
    return created


@pytest.fixture
def ended(store: PollsStore) -> str:
    """The id of a poll that has ended, and hid its totals until then."""
    poll = NewPoll(question="Tea?", options=["Yes", "No"], expires_in=300, hide_totals=True)
    return str(store.create(poll, "alice", datetime.now(UTC) - timedelta(seconds=301)).id)


def test_a_poll_is_open_for_one_choice_without_an_end_unless_said_otherwise(poll: dict[str, Any]) -> None:
    new = {name: poll[name] for name in ("expires_at", "closed", "multiple", "voters_count")}

    assert new == {"expires_at": None, "closed": False, "multiple": False, "voters_count": 0}


@pytest.mark.parametrize("seconds", [300, 86_400, 2_629_746])
def test_a_poll_says_when_it_ends(client: TestClient, as_user: Headers, seconds: int) -> None:
    body = {"question": "Tea?", "options": ["Yes", "No"], "expires_in": seconds}
    created = client.post("/polls", json=body, headers=as_user("alice")).json()

    start, end = (datetime.fromisoformat(created[name]) for name in ("created_at", "expires_at"))
    assert (end - start, created["closed"]) == (timedelta(seconds=seconds), False)
    assert client.get(f"/polls/{created['id']}").json() == created


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"expires_in": 299}, "#/expires_in"),
        ({"expires_in": 2_629_747}, "#/expires_in"),
        ({"expires_in": "300"}, "#/expires_in"),
        ({"expires_in": 0, "hide_totals": True}, "#/expires_in"),
        ({"hide_totals": True}, "#/hide_totals"),
        ({"hide_totals": True, "expires_in": None}, "#/hide_totals"),
        ({"hide_totals": None, "expires_in": 300}, "#/hide_totals"),
        ({"multiple": 1}, "#/multiple"),
    ],
)
def test_impossible_settings_of_a_poll_are_422(
    client: TestClient, as_user: Headers, settings: dict[str, Any], pointer: str
) -> None:
    body = {"question": "Tea?", "options": ["Yes", "No"], **settings}
    refused = client.post("/polls", json=body, headers=as_user("alice"))

    assert (refused.status_code, [error["pointer"] for error in refused.json()["errors"]]) == (422, [pointer])


def test_a_vote_for_several_options_counts_for_each(
    client: TestClient, several: dict[str, Any], as_user: Headers
) -> None:
    voted = _vote(client, several["id"], as_user("bob"), options=[2, 0])
    _vote(client, several["id"], as_user("carol"), option=2)
    results = client.get(f"/polls/{several['id']}/results").json()
    seen = client.get(f"/polls/{several['id']}", headers=as_user("bob")).json()

    assert (voted.status_code, voted.json()) == (
        *(201, {"poll_id": several["id"], "option": 0, "options": [0, 2]}),
    )
    assert (results["total_votes"], [one["votes"] for one in results["results"]]) == (3, [1, 0, 2])
    assert (seen["voters_count"], seen["voted"], seen["own_votes"]) == (2, 0, [0, 2])


def test_options_may_be_one_where_one_is_allowed(
    client: TestClient, poll: dict[str, Any], as_user: Headers
) -> None:
    refused = _vote(client, poll["id"], as_user("bob"), options=[0, 1])
    voted = _vote(client, poll["id"], as_user("bob"), options=[1])

    assert (refused.status_code, refused.json()["code"]) == (400, "single_choice")
    assert (voted.status_code, voted.json()["options"]) == (201, [1])


def test_an_option_out_of_range_among_several_is_400(
    client: TestClient, several: dict[str, Any], as_user: Headers
) -> None:
    voted = _vote(client, several["id"], as_user("bob"), options=[0, 3])

    assert (voted.status_code, voted.json()["code"]) == (400, "option_out_of_range")


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"options": []},
        {"options": [0, 0]},
        {"options": [0, -1]},
        {"options": ["0"]},
        {"options": None},
        {"options": 0},
        {"options": [0], "option": 0},
        {"options": list(range(11))},
    ],
)
def test_a_malformed_choice_is_422(
    client: TestClient, several: dict[str, Any], as_user: Headers, choice: dict[str, Any]
) -> None:
    assert _vote(client, several["id"], as_user("bob"), **choice).status_code == 422


def test_a_vote_after_the_end_is_409(client: TestClient, ended: str, as_user: Headers) -> None:
    voted = _vote(client, ended, as_user("bob"), option=0)

    assert (voted.status_code, voted.json()["code"]) == (409, "poll_closed")


def test_hidden_totals_are_null_everywhere_until_the_end(
    client: TestClient, store: PollsStore, as_user: Headers, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"question": "?", "options": ["Yes", "No"], "expires_in": 300, "hide_totals": True}
    created = client.post("/polls", json=body, headers=as_user("alice")).json()
    poll_id = created["id"]
    _vote(client, poll_id, as_user("bob"), option=1)

    def look() -> list[Any]:
        results = client.get(f"/polls/{poll_id}/results").json()
        own = client.get(f"/polls/{poll_id}", headers=as_user("alice")).json()
        [listed] = client.get(f"/polls?id={poll_id}", headers=as_user("bob")).json()
        votes = [one["votes"] for one in results["results"]]
        return [results["total_votes"], votes, own["voters_count"], listed["voters_count"], own["closed"]]

    before = look()
    monkeypatch.setattr(store, "_clock", lambda: datetime.now(UTC) + timedelta(seconds=301))

    assert created["voters_count"] is None
    assert before == [None, [None, None], None, None, False]
    assert look() == [1, [0, 1], 1, 1, True]


def test_a_batch_has_the_polls_that_exist_in_the_order_asked_each_once(
    client: TestClient, poll: dict[str, Any], several: dict[str, Any]
) -> None:
    ids = [several["id"], UNKNOWN, poll["id"], several["id"].upper()]

    assert client.get("/polls", params={"id": ids}).json() == [several, poll]


def test_a_batch_has_ones_own_votes(
    client: TestClient, poll: dict[str, Any], several: dict[str, Any], as_user: Headers
) -> None:
    _vote(client, several["id"], as_user("bob"), options=[1, 2])
    batch = client.get("/polls", params={"id": [poll["id"], several["id"]]}, headers=as_user("bob")).json()
    single = client.get(f"/polls/{several['id']}", headers=as_user("bob")).json()

    assert [(one["voted"], one["own_votes"]) for one in batch] == [(None, []), (1, [1, 2])]
    assert batch[1] == single


def test_a_hundred_polls_are_one_batch(client: TestClient, poll: dict[str, Any], as_user: Headers) -> None:
    ids = [str(new_id()) for _ in range(99)]
    batch = client.get("/polls", params={"id": [*ids, poll["id"]]}, headers=as_user("bob"))

    assert [one["id"] for one in batch.json()] == [poll["id"]]


@pytest.mark.parametrize("ids", [[], ["1"], [str(new_id()) for _ in range(101)]])
def test_none_more_than_a_hundred_or_malformed_ids_are_422(client: TestClient, ids: list[str]) -> None:
    assert client.get("/polls", params={"id": ids}).status_code == 422


def test_a_deleted_poll_is_gone(
    client: TestClient, poll: dict[str, Any], several: dict[str, Any], as_user: Headers
) -> None:
    _vote(client, poll["id"], as_user("bob"), option=0)
    path, owner = f"/polls/{poll['id']}", as_user("alice")
    deleted = client.delete(path, headers=owner)

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert [client.get(path + "/results").status_code, client.get(path).status_code] == [404, 404]
    assert _vote(client, poll["id"], as_user("carol"), option=0).status_code == 404
    assert client.delete(path, headers=owner).status_code == 404
    assert client.get("/polls", params={"id": [poll["id"], several["id"]]}).json() == [several]


def test_another_users_poll_stays(client: TestClient, poll: dict[str, Any], as_user: Headers) -> None:
    refused = client.delete(f"/polls/{poll['id']}", headers=as_user("bob"))

    assert (refused.status_code, refused.json()["code"]) == (403, "not_yours")
    assert client.get(f"/polls/{poll['id']}").json() == poll


def test_a_store_that_throttles_all_the_time_is_503(
    client: TestClient,
    poll: dict[str, Any],
    as_user: Headers,
    interfere: Callable[[str, list[AWSResponse]], None],
    refusal: Callable[..., AWSResponse],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dynamodb, "DEADLINE_SECONDS", 0.1)
    interfere("TransactWriteItems", [refusal("ThrottlingException") for _ in range(1000)])
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": 0}, headers=as_user("bob"))

    assert (voted.status_code, voted.json()["code"]) == (503, "dynamodb_unavailable")
    assert "Retry-After" in voted.headers


def _away(port: int) -> FastAPI:
    settings = PollsSettings(_env_file=None, registry_url=None, dynamodb_url=f"http://127.0.0.1:{port}")
    return create_app(settings)


CALLS = [
    ("POST", "/polls", {"question": "Tea?", "options": ["Yes", "No"]}),
    ("GET", f"/polls/{UNKNOWN}", None),
    ("POST", f"/polls/{UNKNOWN}/vote", {"option": 0}),
    ("GET", f"/polls/{UNKNOWN}/results", None),
    ("GET", f"/polls?id={UNKNOWN}", None),
    ("DELETE", f"/polls/{UNKNOWN}", None),
]


def test_without_dynamodb_every_call_is_503_and_the_process_lives(as_user: Headers) -> None:
    with TestClient(_away(server_processes.free_port())) as client:
        answers = [
            client.request(method, path, json=body, headers=as_user("bob")) for method, path, body in CALLS
        ]
        health = client.get("/health")

        assert {(response.status_code, response.json()["code"]) for response in answers} == {
            (503, "dynamodb_unavailable")
        }
        assert all(int(response.headers["Retry-After"]) > 0 for response in answers)
        assert (health.status_code, health.json()["checks"]) == (503, {"dynamodb": "unavailable"})
        assert client.get("/livez").status_code == 200


@pytest.mark.kills
def test_dynamodb_may_come_later_and_come_back_empty(own: Own, as_user: Headers) -> None:
    server = own(server_processes.dynamodb)
    with TestClient(_away(server.port)) as client:
        for end in (server.kill, server.stop):  # the stand-in keeps nothing over a kill
            server.start()
            eventually(lambda: client.get("/health").status_code == 200)
            created = client.post("/polls", json=CALLS[0][2], headers=as_user("bob"))
            assert client.get(created.headers["Location"]).status_code == 200
            end()
