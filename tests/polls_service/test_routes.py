"""What the polls service answers."""

from collections.abc import Callable
from typing import Any

import pytest
import servers
from fastapi.testclient import TestClient

from polls_service.app import create_app
from polls_service.settings import PollsSettings

Headers = Callable[[str], dict[str, str]]
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


@pytest.mark.parametrize("option", [-1, "0", 0.5, True, None, 10**30])
def test_what_is_no_index_is_422(
    client: TestClient, poll: dict[str, Any], as_user: Headers, option: object
) -> None:
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": option}, headers=as_user("bob"))

    assert voted.status_code == 422


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
    answer = client.request(method, f"/polls/{UNKNOWN}{path}", json=body, headers=as_user("bob"))

    assert (answer.status_code, answer.json()["code"]) == (404, "poll_not_found")


@pytest.mark.parametrize("poll_id", ["1", UNKNOWN.replace("-", ""), f"{{{UNKNOWN}}}"])
def test_a_malformed_id_is_422(client: TestClient, poll_id: str) -> None:
    assert client.get(f"/polls/{poll_id}").status_code == 422


@pytest.mark.parametrize("path", ["/polls", f"/polls/{UNKNOWN}/vote"])
def test_writing_without_a_token_is_401(client: TestClient, path: str) -> None:
    answer = client.post(path, content=b"{")

    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_bad_token_is_401_where_a_token_is_optional(client: TestClient, poll: dict[str, Any]) -> None:
    assert client.get(f"/polls/{poll['id']}", headers={"Authorization": "Bearer x"}).status_code == 401


def test_services_do_not_vote(client: TestClient, poll: dict[str, Any], as_service: Headers) -> None:
    voted = client.post(f"/polls/{poll['id']}/vote", json={"option": 0}, headers=as_service("likes"))

    assert voted.status_code == 403


def test_a_store_that_is_away_is_503(as_user: Headers) -> None:
    url = f"http://127.0.0.1:{servers.free_port()}"
    with TestClient(create_app(PollsSettings(_env_file=None, registry_url=None, dynamodb_url=url))) as client:
        polls = client.get(f"/polls/{UNKNOWN}")
        health = client.get("/health")

        assert (polls.status_code, polls.json()["code"], polls.headers["Retry-After"]) == (
            503,
            "dynamodb_unavailable",
            "2",
        )
        assert (health.status_code, health.json()["checks"]) == (503, {"dynamodb": "unavailable"})
        assert client.get("/livez").status_code == 200
