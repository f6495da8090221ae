"""The whole suite as its users see it: nine processes, one door."""

import re

import pytest
from openapi_spec_validator import validate

from tests import plain_http
from tests.polling import eventually
from tests.suite.conftest import Suite

pytestmark = pytest.mark.starts


def _post(suite: Suite, headers: dict[str, str], text: str = "Hello!") -> str:
    created = suite.gateway.post("/posts", json={"text": text}, headers=headers)
    assert created.status_code == 201
    post_id: str = created.json()["id"]
    return post_id


def test_a_new_user_has_a_profile(suite: Suite) -> None:
    suite.sign_up("walk_profile")

    assert suite.gateway.get("/users/walk_profile").json()["username"] == "walk_profile"


def test_a_followees_post_is_on_the_home_timeline_at_once(suite: Suite) -> None:
    reader, writer = suite.sign_up("walk_reader"), suite.sign_up("walk_writer")
    post_id = _post(suite, writer)
    suite.gateway.post("/users/follow/walk_writer", headers=reader).raise_for_status()

    home = suite.gateway.get("/posts/home/walk_reader", headers=reader).json()

    assert [post["id"] for post in home] == [post_id]


def test_an_unfollowed_users_posts_are_gone_from_the_home_timeline(suite: Suite) -> None:
    reader, writer = suite.sign_up("walk_leaver"), suite.sign_up("walk_left")
    _post(suite, writer)
    suite.gateway.post("/users/follow/walk_left", headers=reader).raise_for_status()
    suite.gateway.post("/users/unfollow/walk_left", headers=reader).raise_for_status()

    assert suite.gateway.get("/posts/home/walk_leaver", headers=reader).json() == []


def test_a_post_is_on_its_authors_and_the_public_timeline(suite: Suite) -> None:
    post_id = _post(suite, suite.sign_up("walk_author"))

    assert suite.gateway.get("/posts/walk_author").json()[0]["id"] == post_id
    assert post_id in [post["id"] for post in suite.gateway.get("/posts?limit=100").json()]


def test_a_queued_post_appears_under_the_id_that_was_promised(suite: Suite) -> None:
    headers = suite.sign_up("walk_async")
    queued = suite.gateway.post("/posts/async", json={"text": "Later!"}, headers=headers)

    stored = suite.see(queued.headers["Location"])

    assert (queued.status_code, stored["id"], stored["text"]) == (202, queued.json()["id"], "Later!")


def test_a_like_is_mailed_to_the_author_once(suite: Suite) -> None:
    fan, author = suite.sign_up("walk_fan"), suite.sign_up("walk_liked")
    post_id = _post(suite, author, "Like this!")
    first = suite.gateway.post(f"/likes/{post_id}", headers=fan)
    again = suite.gateway.post(f"/likes/{post_id}", headers=fan)

    [mail] = eventually(lambda: suite.mails_to("walk_liked"))

    assert (first.status_code, again.status_code) == (201, 200)
    assert "walk_fan" in mail
    assert "Like this!" in mail


def test_a_like_of_nothing_is_taken_back_and_the_liker_told(suite: Suite) -> None:
    fan = suite.sign_up("walk_phantom")
    post_id = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"
    suite.gateway.post(f"/likes/{post_id}", headers=fan).raise_for_status()

    eventually(lambda: suite.mails_to("walk_phantom"))

    assert suite.gateway.get(f"/likes/{post_id}/count").json()["count"] == 0
    assert suite.gateway.get("/users/walk_phantom/likes").json() == []


def test_the_inbox_has_what_others_did_until_they_undo_it(suite: Suite) -> None:
    fan, author = suite.sign_up("walk_teller"), suite.sign_up("walk_told")
    post_id = _post(suite, author)

    def told() -> list[str]:
        inbox = suite.gateway.get("/notifications", headers=author).raise_for_status().json()
        return sorted(one["kind"] for one in inbox if one["actor"] == "walk_teller")

    calls = ((f"/likes/{post_id}", "DELETE"), (f"/posts/id/{post_id}/repost", "DELETE"))
    for path, _ in calls:
        suite.gateway.post(path, headers=fan).raise_for_status()
    suite.gateway.post("/users/follow/walk_told", headers=fan).raise_for_status()
    eventually(lambda: told() == ["follow", "like", "repost"])

    for path, undo in calls:
        suite.gateway.request(undo, path, headers=fan).raise_for_status()
    eventually(lambda: told() == ["follow"])


def test_the_inbox_leaves_out_the_muted_at_once(suite: Suite) -> None:
    fan, author = suite.sign_up("walk_muted"), suite.sign_up("walk_muter")
    reply = {"text": "Me, too!", "in_reply_to": _post(suite, author)}
    suite.gateway.post("/posts", json=reply, headers=fan).raise_for_status()
    counts = []
    for verb in ("mute", "unmute"):
        counts.append(suite.gateway.get("/notifications/unread", headers=author).json()["count"])
        suite.gateway.post(f"/users/{verb}/walk_muted", headers=author).raise_for_status()
        counts.append(len(suite.gateway.get("/notifications", headers=author).json()))

    assert counts == [1, 0, 0, 1]


def test_a_liked_post_is_popular(suite: Suite) -> None:
    fan = suite.sign_up("walk_popular")
    post_id = _post(suite, fan)
    suite.gateway.post(f"/likes/{post_id}", headers=fan).raise_for_status()

    assert {"post_id": post_id, "count": 1} in suite.gateway.get("/likes/popular?limit=100").json()


def test_a_vote_counts_once(suite: Suite) -> None:
    voter = suite.sign_up("walk_voter")
    poll = suite.gateway.post(
        "/polls", json={"question": "Tea?", "options": ["Yes", "No"]}, headers=voter
    ).json()
    votes = [
        suite.gateway.post(f"/polls/{poll['id']}/vote", json={"option": 1}, headers=voter) for _ in range(2)
    ]

    assert [vote.status_code for vote in votes] == [201, 409]
    results = suite.gateway.get(f"/polls/{poll['id']}/results").json()
    assert [option["votes"] for option in results["results"]] == [0, 1]


def test_a_deleted_post_takes_its_likes_and_its_poll_along(suite: Suite) -> None:
    author, fan = suite.sign_up("walk_deleter"), suite.sign_up("walk_fan_of_it")
    new_poll = {"question": "Tea?", "options": ["Yes", "No"]}
    poll_id = suite.gateway.post("/polls", json=new_poll, headers=author).json()["id"]
    post = suite.gateway.post("/posts", json={"text": "Vote!", "poll_id": poll_id}, headers=author).json()
    suite.gateway.post(f"/likes/{post['id']}", headers=fan).raise_for_status()

    suite.gateway.delete(f"/posts/id/{post['id']}", headers=author).raise_for_status()

    assert post["poll_id"] == poll_id
    eventually(lambda: suite.gateway.get(f"/polls/{poll_id}").status_code == 404)
    eventually(lambda: suite.gateway.get("/users/walk_fan_of_it/likes").json() == [])


def test_the_next_page_is_where_the_link_says(suite: Suite) -> None:
    headers = suite.sign_up("walk_pages")
    written = [_post(suite, headers, f"Post {number}") for number in range(3)]
    first = suite.gateway.get("/posts/walk_pages?limit=2")
    [link] = re.findall('<(.*)>; rel="next"', first.headers["Link"])
    second = suite.gateway.get(link)

    assert [post["id"] for post in first.json() + second.json()] == written[::-1]
    assert 'rel="next"' not in second.headers["Link"]


def test_the_merged_document_is_valid(suite: Suite) -> None:
    validate(suite.gateway.get("/openapi.json").json())


def test_every_documented_call_is_answered_by_its_service(suite: Suite) -> None:
    paths = suite.gateway.get("/openapi.json").json()["paths"]
    answers = {
        (method, path): suite.gateway.request(method, path)
        for path, methods in paths.items()
        for method in methods
    }

    assert len(answers) > 20
    assert {
        call for call, answer in answers.items() if answer.status_code in (404, 405) or answer.is_server_error
    } == set()


@pytest.mark.parametrize("service", ["gateway", "registry", "users", "timelines", "likes", "polls"])
def test_every_service_is_well_and_shows_its_document(suite: Suite, service: str) -> None:
    url = f"http://127.0.0.1:{suite.ports[service]}"

    assert plain_http.get(f"{url}/health").json()["status"] == "ok"
    assert plain_http.get(f"{url}/docs").status_code == 200
