"""HTTP for likes, as the contract says it."""

from datetime import datetime
from uuid import UUID

import pytest
import redis
import server_processes
from fastapi.testclient import TestClient

from common.fields import new_id
from likes_service.app import create_app
from tests.likes_service.conftest import settings
from tests.pages import pages
from tests.polling import eventually

UNKNOWN = "019eb2a4-7c1e-7d52-9b0e-3f0c5b1a2d4e"


def test_the_first_like_is_201(client, as_user):
    answer = client.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    assert answer.status_code == 201
    assert answer.json() == {
        "post_id": UNKNOWN,
        "username": "bob",
        "liked": True,
        "changed": True,
        "count": 1,
    }


def test_a_like_again_is_200_and_changes_nothing(client, as_user):
    client.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    answer = client.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    assert answer.status_code == 200
    assert answer.json() == {
        "post_id": UNKNOWN,
        "username": "bob",
        "liked": True,
        "changed": False,
        "count": 1,
    }


def test_a_like_is_queued_for_validation_once(client, as_user, jobs):
    client.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))
    client.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    assert eventually(jobs) == [{"post_id": UNKNOWN, "username": "bob"}]


def test_unliking_takes_the_like_back(client, as_user):
    client.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    answer = client.delete(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    assert answer.status_code == 200
    assert answer.json() == {
        "post_id": UNKNOWN,
        "username": "bob",
        "liked": False,
        "changed": True,
        "count": 0,
    }


def test_unliking_again_changes_nothing(client, as_user):
    answer = client.delete(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    assert answer.status_code == 200
    assert (answer.json()["liked"], answer.json()["changed"]) == (False, False)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_without_a_token_it_is_401(client, method):
    answer = client.request(method, f"/likes/{UNKNOWN}")

    assert (answer.status_code, answer.json()["code"]) == (401, "token_required")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_bad_token_is_401_before_the_id_is_looked_at(client, method):
    answer = client.request(method, "/likes/junk", headers={"Authorization": "Bearer junk"})

    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_service_likes_nothing(client, as_service, method):
    answer = client.request(method, f"/likes/{UNKNOWN}", headers=as_service("timelines"))

    assert (answer.status_code, answer.json()["code"]) == (403, "users_only")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize("post_id", ["1", "popular", UNKNOWN.replace("-", ""), f"{{{UNKNOWN}}}", "%00"])
def test_a_malformed_id_is_422(client, as_user, method, post_id):
    answer = client.request(method, f"/likes/{post_id}", headers=as_user("bob"))

    assert answer.status_code == 422


def test_an_id_in_capitals_is_the_same_post(client, as_user):
    client.post(f"/likes/{UNKNOWN.upper()}", headers=as_user("bob"))

    assert client.get(f"/likes/{UNKNOWN}/count").json() == {"post_id": UNKNOWN, "count": 1}


def test_what_is_not_there_is_405_or_404(client):
    assert client.get(f"/likes/{UNKNOWN}").status_code == 405
    assert client.put("/likes").status_code == 405
    assert client.get("/likes/").status_code == 404


def test_the_count_counts_users(client, as_user):
    for name in ("bob", "carol", "bob"):
        client.post(f"/likes/{UNKNOWN}", headers=as_user(name))

    answer = client.get(f"/likes/{UNKNOWN}/count")

    assert answer.status_code == 200
    assert answer.json() == {"post_id": UNKNOWN, "count": 2}


def test_the_count_of_an_unknown_post_is_0(client):
    assert client.get(f"/likes/{UNKNOWN}/count").json() == {"post_id": UNKNOWN, "count": 0}


def test_the_count_of_a_malformed_id_is_422(client):
    assert client.get("/likes/1/count").status_code == 422


def like_some(client, as_user, number):
    posts = [str(new_id()) for _ in range(number)]
    for post_id in posts:
        client.post(f"/likes/{post_id}", headers=as_user("bob"))
    return posts


def test_a_users_likes_are_newest_first(client, as_user):
    posts = like_some(client, as_user, 3)

    answer = client.get("/users/bob/likes")

    assert answer.status_code == 200
    assert [liked["post_id"] for liked in answer.json()] == posts[::-1]


def test_since_when_a_post_is_liked_is_utc(client, as_user):
    like_some(client, as_user, 1)

    liked_at = client.get("/users/bob/likes").json()[0]["liked_at"]

    assert liked_at.endswith("Z")
    assert datetime.fromisoformat(liked_at)


def test_a_users_name_is_one_in_any_case(client, as_user):
    like_some(client, as_user, 1)

    assert len(client.get("/users/BoB/likes").json()) == 1


def test_who_likes_nothing_has_an_empty_list(client):
    answer = client.get("/users/bob/likes")

    assert (answer.status_code, answer.json()) == (200, [])
    assert "Link" not in answer.headers


@pytest.mark.parametrize("path", ["/users/bob/likes", "/likes/popular"])
def test_links_lead_through_all_pages(client, as_user, path):
    posts = like_some(client, as_user, 5)

    seen = [one["post_id"] for page in pages(client, f"{path}?limit=2") for one in page.json()]

    assert seen == posts[::-1]


@pytest.mark.parametrize("path", ["/users/bob/likes", "/likes/popular"])
def test_a_last_page_that_is_full_has_no_link_to_a_next_one(client, as_user, path):
    like_some(client, as_user, 2)

    assert "next" not in client.get(f"{path}?limit=2").links


def test_the_link_to_a_next_page_is_what_it_was_before_there_were_others(client, as_user):
    posts = like_some(client, as_user, 3)

    link = client.get("/users/bob/likes?limit=2").headers["Link"]

    assert link.startswith(f"</users/bob/likes?limit=2&before={posts[1]}&seen=")


def test_the_ranking_goes_on_from_a_post_that_is_gone(client, as_user):
    posts = like_some(client, as_user, 3)
    link = client.get("/likes/popular?limit=2").links["next"]["url"]

    client.app.state.store.delete_post(UUID(posts[1]))

    assert [one["post_id"] for one in client.get(link).json()] == [posts[0]]


def test_the_ranking_goes_on_from_where_a_post_was_that_has_risen(client, as_user):
    posts = like_some(client, as_user, 3)
    link = client.get("/likes/popular?limit=2").links["next"]["url"]

    client.post(f"/likes/{posts[1]}", headers=as_user("carol"))

    assert [one["post_id"] for one in client.get(link).json()] == [posts[0]]


@pytest.mark.parametrize("is_back", [False, True], ids=["gone", "there again"])
def test_pages_of_likers_go_on_from_a_user_whose_like_is(client, as_user, raw_redis, is_back):
    for name in ("user1", "user2", "user3"):
        client.post(f"/likes/{UNKNOWN}", headers=as_user(name))
    path = f"/likes/{UNKNOWN}/users"
    links = client.get(f"{path}?limit=1&before=user3").links

    client.delete(f"/likes/{UNKNOWN}", headers=as_user("user2"))
    forget_undone(raw_redis)
    if is_back:
        client.post(f"/likes/{UNKNOWN}", headers=as_user("user2"))

    found = [[one["username"] for one in client.get(links[rel]["url"]).json()] for rel in ("next", "prev")]
    assert found == [["user1"], ["user3"]]


@pytest.mark.parametrize("is_back", [False, True], ids=["gone", "there again"])
def test_pages_of_a_users_likes_go_on_from_a_post_whose_like_is(client, as_user, raw_redis, is_back):
    posts = like_some(client, as_user, 3)
    links = client.get(f"/users/bob/likes?limit=1&before={posts[2]}").links

    client.delete(f"/likes/{posts[1]}", headers=as_user("bob"))
    forget_undone(raw_redis)
    if is_back:
        client.post(f"/likes/{posts[1]}", headers=as_user("bob"))

    found = [[one["post_id"] for one in client.get(links[rel]["url"]).json()] for rel in ("next", "prev")]
    assert found == [[posts[0]], [posts[2]]]


def forget_undone(raw_redis: redis.Redis) -> None:
    """As an hour after an unlike."""
    raw_redis.delete(*raw_redis.scan_iter("likes:undone:*"))


@pytest.mark.parametrize("seen", ["", "-1", "x", "1.0", "1" * 17, "%00"])
@pytest.mark.parametrize("path", ["/users/bob/likes", "/likes/popular", f"/likes/{UNKNOWN}/users"])
def test_a_malformed_position_is_422(client, path, seen):
    assert client.get(f"{path}?seen={seen}").status_code == 422


def test_the_ranking_has_no_previous_page(client, as_user):
    posts = like_some(client, as_user, 3)

    link = client.get("/likes/popular?limit=2").headers["Link"]

    assert link == f'</likes/popular?limit=2&before={posts[1]}&seen=1>; rel="next"'


def test_links_lead_back_to_what_is_newest_while_more_is_liked(client, as_user):
    posts = like_some(client, as_user, 5)
    *_, last = pages(client, "/users/bob/likes?limit=2")
    posts += like_some(client, as_user, 4)

    newer = pages(client, last.links["prev"]["url"], "prev")
    back = [[one["post_id"] for one in page.json()] for page in newer]

    assert [post_id for page in reversed(back) for post_id in page] == posts[:0:-1]


def test_the_newest_page_leads_to_what_comes_later(client, as_user):
    like_some(client, as_user, 3)
    newest = client.get("/users/bob/likes")
    later = like_some(client, as_user, 2)

    answer = client.get(newest.links["prev"]["url"])

    assert [one["post_id"] for one in answer.json()] == later[::-1]


def test_the_users_who_like_a_post_are_newest_first_and_paged(client, as_user):
    names = ["alice", "bob", "carol", "dave", "erin"]
    for name in names:
        client.post(f"/likes/{UNKNOWN}", headers=as_user(name))

    found = list(pages(client, f"/likes/{UNKNOWN}/users?limit=2"))

    assert [[liker["username"] for liker in page.json()] for page in found] == [
        *(["erin", "dave"], ["carol", "bob"], ["alice"])
    ]
    assert set(found[0].json()[0]) == {"username", "liked_at"}
    assert found[0].json()[0]["liked_at"].endswith("Z")


def test_a_user_who_takes_a_like_back_is_still_a_cursor(client, as_user):
    for name in ("alice", "bob", "carol"):
        client.post(f"/likes/{UNKNOWN}", headers=as_user(name))
    first = client.get(f"/likes/{UNKNOWN}/users?limit=2")
    client.delete(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    answer = client.get(first.links["next"]["url"])

    assert [liker["username"] for liker in answer.json()] == ["alice"]


def test_nobody_likes_an_unknown_post(client):
    answer = client.get(f"/likes/{UNKNOWN}/users")

    assert (answer.status_code, answer.json()) == (200, [])


def batch(client, posts, **options):
    return client.get("/likes", params={"post_id": posts}, **options)


def test_the_likes_of_posts_come_in_the_order_asked_each_once(client, as_user):
    first, second = like_some(client, as_user, 2)
    client.post(f"/likes/{second}", headers=as_user("carol"))

    answer = batch(client, [second, UNKNOWN, first, second.upper()])

    assert answer.status_code == 200
    assert answer.json() == [
        {"post_id": second, "count": 2},
        {"post_id": UNKNOWN, "count": 0},
        {"post_id": first, "count": 1},
    ]


def test_with_a_token_the_likes_of_posts_say_whether_one_likes_them(client, as_user):
    (post_id,) = like_some(client, as_user, 1)

    liked = [
        [one["liked"] for one in batch(client, [post_id, UNKNOWN], headers=as_user(name)).json()]
        for name in ("bob", "carol")
    ]

    assert liked == [[True, False], [False, False]]


def test_a_service_likes_none_of_the_posts_that_it_asks_for(client, as_user, as_service):
    (post_id,) = like_some(client, as_user, 1)

    answer = batch(client, [post_id], headers=as_service("timelines"))

    assert answer.json() == [{"post_id": post_id, "count": 1, "liked": False}]


@pytest.mark.parametrize("posts", [[], ["1"], [UNKNOWN, "x"], [str(new_id()) for _ in range(101)]])
def test_none_more_than_a_hundred_or_malformed_posts_are_422(client, posts):
    assert batch(client, posts).status_code == 422


def test_a_hundred_posts_are_one_batch(client):
    assert len(batch(client, [str(new_id()) for _ in range(100)]).json()) == 100


def test_a_bad_token_is_401_in_a_batch(client):
    assert batch(client, [UNKNOWN], headers={"Authorization": "Bearer x"}).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        f"/users/bob/likes?before={UNKNOWN}",
        f"/users/bob/likes?after={UNKNOWN}",
        f"/likes/popular?before={UNKNOWN}",
        f"/likes/{UNKNOWN}/users?before=bob",
        f"/likes/{UNKNOWN}/users?after=bob",
    ],
)
def test_an_unknown_cursor_is_400(client, path):
    answer = client.get(path)

    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_cursor")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "before=1"])
@pytest.mark.parametrize("path", ["/users/bob/likes", "/likes/popular", f"/likes/{UNKNOWN}/users"])
def test_a_malformed_page_is_422(client, path, query):
    assert client.get(f"{path}?{query}").status_code == 422


@pytest.mark.parametrize("name", ["a", "me", "x" * 31, "a-b"])
def test_the_likes_of_a_malformed_name_are_422(client, name):
    assert client.get(f"/users/{name}/likes").status_code == 422


def test_popular_posts_come_most_liked_first(client, as_user):
    first, second = like_some(client, as_user, 2)
    client.post(f"/likes/{first}", headers=as_user("carol"))

    answer = client.get("/likes/popular")

    assert answer.status_code == 200
    assert answer.json() == [{"post_id": first, "count": 2}, {"post_id": second, "count": 1}]


def test_ten_posts_are_popular_unless_said_otherwise(client, as_user):
    like_some(client, as_user, 12)

    assert len(client.get("/likes/popular").json()) == 10
    assert len(client.get("/likes/popular?limit=100").json()) == 12


def test_health_is_ok(client):
    eventually(lambda: client.get("/health").json()["checks"] == {"redis": "ok", "beanstalkd": "ok"})


@pytest.fixture
def without_beanstalkd(redis_url):
    app = create_app(settings(redis_url=redis_url, beanstalkd_port=server_processes.free_port()))
    with TestClient(app) as client:
        yield client


def test_without_beanstalkd_likes_are_taken(without_beanstalkd, as_user):
    answer = without_beanstalkd.post(f"/likes/{UNKNOWN}", headers=as_user("bob"))

    assert (answer.status_code, answer.json()["count"]) == (201, 1)


def test_health_is_ok_with_a_warning_while_one_of_two_beanstalkds_is_away(redis_url, beanstalkd_port):
    away = f"127.0.0.1:{server_processes.free_port()}"
    hosts = f"{away},127.0.0.1:{beanstalkd_port}"
    with TestClient(create_app(settings(redis_url=redis_url, beanstalkd_host=hosts))) as client:
        assert (
            eventually(lambda: client.get("/health").json().get("warnings", {}).get("beanstalkd"))
            == f"{away} cannot be used: its jobs wait"
        )
        assert client.get("/health").json()["status"] == "ok"


def test_without_beanstalkd_health_is_degraded(without_beanstalkd):
    eventually(lambda: without_beanstalkd.get("/health").json()["status"] == "degraded")
    answer = without_beanstalkd.get("/health")

    assert answer.status_code == 200
    assert answer.json()["checks"] == {"redis": "ok", "beanstalkd": "unavailable"}


@pytest.fixture
def without_redis(beanstalkd_port):
    port = server_processes.free_port()
    app = create_app(settings(redis_url=f"redis://127.0.0.1:{port}/0", beanstalkd_port=beanstalkd_port))
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/likes/{UNKNOWN}"),
        ("DELETE", f"/likes/{UNKNOWN}"),
        ("GET", f"/likes/{UNKNOWN}/count"),
        ("GET", "/users/bob/likes"),
        ("GET", "/likes/popular"),
        ("GET", f"/likes?post_id={UNKNOWN}"),
        ("GET", f"/likes/{UNKNOWN}/users"),
    ],
)
def test_without_redis_it_is_503(without_redis, as_user, method, path):
    answer = without_redis.request(method, path, headers=as_user("bob"))

    assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
    assert int(answer.headers["Retry-After"]) > 0


def test_without_redis_health_is_unavailable(without_redis):
    answer = without_redis.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


def test_every_status_is_in_the_document(client):
    paths = client.get("/openapi.json").json()["paths"]
    documented = {
        (method, path): set(operation["responses"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }

    assert documented["post", "/likes/{post_id}"] == {"200", "201", "401", "403", "422", "503"}
    assert documented["delete", "/likes/{post_id}"] == {"200", "401", "403", "422", "503"}
    assert documented["get", "/likes/{post_id}/count"] == {"200", "422", "503"}
    assert documented["get", "/users/{username}/likes"] == {"200", "400", "422", "503"}
    assert documented["get", "/likes/popular"] == {"200", "400", "422", "503"}
    assert documented["get", "/likes"] == {"200", "401", "422", "503"}
    assert documented["get", "/likes/{post_id}/users"] == {"200", "400", "422", "503"}
