"""What other services' answers mean."""

import httpx
import pytest

from common.errors import Unavailable
from tests.likes_service.conftest import problem

POST = {"id": "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e", "username": "alice", "text": "Hi", "created_at": "-"}


def test_a_post_is_read(timelines, timelines_client, post_id):
    timelines.otherwise = httpx.Response(200, json=POST)

    assert timelines_client.post(post_id).text == "Hi"


def test_a_post_is_asked_for_by_its_id_and_as_this_service(timelines, timelines_client, tokens, post_id):
    timelines.otherwise = httpx.Response(200, json=POST)

    timelines_client.post(post_id)

    (request,) = timelines.requests
    assert request.url.path == f"/posts/id/{post_id}"
    assert tokens.subject(request.headers["Authorization"].removeprefix("Bearer ")) == "service:likes"


@pytest.mark.parametrize("answer", [problem(404, "post_not_found"), httpx.Response(404)])
def test_404_means_that_there_is_no_such_post(timelines, timelines_client, post_id, answer):
    timelines.otherwise = answer

    assert timelines_client.post(post_id) is None


@pytest.mark.parametrize("answer", [problem(404, "not_found"), httpx.Response(404, json={})])
def test_404_of_another_service_means_nothing(timelines, timelines_client, post_id, answer):
    timelines.otherwise = answer

    with pytest.raises(Unavailable):
        timelines_client.post(post_id)


@pytest.mark.parametrize(
    "status", [204, 301, 304, 400, 401, 403, 410, 422, 429, 500, 501, 502, 503, 504, 507]
)
def test_any_other_status_means_nothing(timelines, timelines_client, post_id, status):
    timelines.otherwise = httpx.Response(status)

    with pytest.raises(Unavailable):
        timelines_client.post(post_id)


@pytest.mark.parametrize(
    "body", [b"", b"junk", b"{}", b"[]", b'{"id": "1", "username": "alice", "text": "-"}']
)
def test_an_answer_that_is_no_post_means_nothing(timelines, timelines_client, post_id, body):
    timelines.otherwise = httpx.Response(200, content=body)

    with pytest.raises(Unavailable):
        timelines_client.post(post_id)


def test_an_address_is_read(users, users_client):
    users.answers["/users/alice"] = httpx.Response(
        200, json={"username": "alice", "email": "alice@example.com"}
    )

    assert users_client.recipient("alice").email == "alice@example.com"


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, json={"email": None}), problem(404, "user_not_found")]
)
def test_who_has_no_address_has_none(users, users_client, answer):
    users.otherwise = answer

    assert users_client.recipient("alice").email is None


@pytest.mark.parametrize(
    ("answer", "is_hidden"),
    [
        (httpx.Response(200, json={"followees": ["bob"], "hidden": ["bob", "carol"]}), True),
        (httpx.Response(200, json={"followees": ["bob"], "hidden": []}), False),
        (problem(404, "user_not_found"), False),
    ],
)
def test_whether_a_user_is_hidden_is_read(users, users_client, answer, is_hidden):
    users.answers["/users/alice/home-sources"] = answer

    assert users_client.hides("alice", "bob") is is_hidden


def test_an_address_that_cannot_be_asked_for_is_not_none(users, users_client):
    users.otherwise = httpx.Response(503)

    with pytest.raises(Unavailable):
        users_client.recipient("alice")
