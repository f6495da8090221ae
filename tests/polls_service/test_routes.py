"""What the polls service answers."""

from collections.abc import Callable
from typing import Any

import pytest
import server_processes
from botocore.awsrequest import AWSResponse
from fastapi import FastAPI
from fastapi.testclient import TestClient

from common.api.routing import MAX_BODY_BYTES
from polls_service import dynamodb
from polls_service.app import create_app
from polls_service.settings import PollsSettings
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
        {"question": "Tea?", "options": ["a", "x" * 101]},
        {"question": "Tea?", "options": ["a", "b"], "created_by": "bob"},
        {"question": "Tea?"},
        [],
    ],
)
def test_a_malformed_poll_is_422(client: TestClient, as_user: Headers, body: object) -> None:
    assert client.post("/polls", json=body, headers=as_user("alice")).status_code == 422


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/results"), ("POST", "/vote")])
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
