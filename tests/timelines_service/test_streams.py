"""Live streams of one instance: what they bring to whom, and when they end."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text

from common.revocations import Revocation, RevocationChanges
from common.server.run import uvicorn_config
from common.settings import DEFAULT_JWT_SECRET
from common.tokens import Tokens
from tests.event_client import EventClient
from tests.polling import eventually
from tests.serving import serving
from tests.timelines_service.conftest import Users
from timelines_service import streams as module
from timelines_service.app import create_app
from timelines_service.settings import TimelinesSettings
from timelines_service.store import TimelinesStore
from timelines_service.stream_log import RESUME_SECONDS, Position

Open = Callable[..., EventClient]
Headers = Callable[[str], dict[str, str]]


class Api:
    """What users do, through the service's own calls."""

    def __init__(self, client: httpx2.Client, as_user: Headers) -> None:
        self.client = client
        self._as_user = as_user

    def call(self, method: str, path: str, username: str, **json: object) -> Any:
        headers = self._as_user(username)
        answer = self.client.request(method, path, json=json or None, headers=headers).raise_for_status()
        return answer.json() if answer.content else None

    def write(self, username: str, words: str, **more: object) -> str:
        """The id of a new post."""
        post_id: str = self.call("POST", "/posts", username, text=words, **more)["id"]
        return post_id

    def repost(self, username: str, post_id: str) -> str:
        repost_id: str = self.call("POST", f"/posts/id/{post_id}/repost", username)["id"]
        return repost_id

    def delete(self, username: str, post_id: str) -> None:
        self.call("DELETE", f"/posts/id/{post_id}", username)


@contextmanager
def running(app: FastAPI, settings: TimelinesSettings) -> Iterator[int]:
    """The app serves meanwhile; its port."""
    config = uvicorn_config(app, settings)
    config.port = 0
    server = uvicorn.Server(config)
    with serving(server):
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            app.state.streams.stop()


@pytest.fixture
def port(app: FastAPI, settings: TimelinesSettings) -> Iterator[int]:
    with running(app, settings) as port:
        yield port


@pytest.fixture
def api(port: int, as_user: Headers) -> Iterator[Api]:
    with httpx2.Client(verify=False, base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield Api(client, as_user)


@pytest.fixture
def listen(port: int) -> Iterator[Open]:
    """Open a stream, and close it in the end."""
    with ExitStack() as stack:
        yield lambda *arguments, **query: stack.enter_context(EventClient(port, *arguments, **query))


@pytest.fixture
def home(users: Users, as_user: Headers, listen: Open) -> Open:
    """Open the home stream of alice, who follows bob."""
    users.followees |= {"alice": ["bob"], "bob": [], "carol": []}
    return lambda **more: listen(as_user("alice"), **more)


def test_a_post_comes_as_a_get_has_it(listen: Open, api: Api) -> None:
    stream = listen(timeline="public")
    post_id = api.write("alice", "Hello #world")

    [event] = stream.waits_for(1)
    assert event.kind == "post"
    assert event.data == api.client.get(f"/posts/id/{post_id}").json()


def test_an_edit_comes_with_the_new_text(listen: Open, api: Api) -> None:
    stream = listen(timeline="public")
    post_id = api.write("alice", "Before")
    stream.waits_for(1)
    api.call("PATCH", f"/posts/id/{post_id}", "alice", text="After")

    [_, event] = stream.waits_for(2)
    assert (event.kind, event.data["id"], event.data["text"]) == ("edit", post_id, "After")


def test_a_deletion_comes_with_the_id(listen: Open, api: Api) -> None:
    stream = listen(timeline="public")
    post_id = api.write("alice", "Soon gone")
    stream.waits_for(1)
    api.delete("alice", post_id)

    [_, event] = stream.waits_for(2)
    assert (event.kind, event.data) == ("delete", {"id": post_id})


def test_what_was_there_before_does_not_come(listen: Open, api: Api) -> None:
    api.write("alice", "Before")
    stream = listen(timeline="public")
    api.write("alice", "After")

    assert stream.waits_for_text("After") == ["After"]


def test_counts_of_replies_and_reposts_are_no_events(listen: Open, api: Api) -> None:
    post_id = api.write("alice", "Hello")
    stream = listen(timeline="user", username="alice")
    api.repost("bob", post_id)
    api.write("bob", "Hi", in_reply_to=post_id)
    api.write("alice", "Last")

    assert stream.waits_for_text("Last") == ["Last"]


def test_public_leaves_out_reposts_and_unlisted_posts(listen: Open, api: Api) -> None:
    stream = listen(timeline="public")
    api.repost("bob", api.write("alice", "First"))
    api.write("alice", "Unlisted", visibility="unlisted")
    api.write("alice", "Last")

    assert stream.waits_for_text("Last") == ["First", "Last"]


def test_a_tags_stream_has_the_posts_with_it(listen: Open, api: Api) -> None:
    stream = listen(timeline="tag", tag="MORNING")
    for words in ("#evening", "Good #morning", "#mornings", "Up #Morning"):
        api.write("alice", words)

    assert stream.waits_for_text("Up #Morning") == ["Good #morning", "Up #Morning"]


def test_a_tags_stream_tells_of_an_edit_that_takes_the_tag_away(listen: Open, api: Api) -> None:
    stream = listen(timeline="tag", tag="morning")
    post_id = api.write("alice", "Good #morning")
    api.call("PATCH", f"/posts/id/{post_id}", "alice", text="Good #evening")

    assert stream.waits_for(2)[1].data["tags"] == ["evening"]


def test_a_users_stream_has_posts_and_reposts(listen: Open, api: Api, users: Users) -> None:
    users.followees["bob"] = []
    stream = listen(timeline="user", username="bob")
    repost_id = api.repost("bob", api.write("alice", "Hers"))
    api.write("bob", "His")

    [repost, own] = stream.waits_for(2)
    assert (repost.data["id"], repost.data["repost_of"]["text"]) == (repost_id, "Hers")
    assert own.data["text"] == "His"


def test_home_has_those_whom_the_user_follows_and_the_user(home: Open, api: Api) -> None:
    stream = home()
    for username in ("carol", "bob", "alice"):
        api.write(username, f"By {username}")

    assert stream.waits_for_text("By alice") == ["By bob", "By alice"]


def test_home_leaves_out_those_who_are_hidden_and_their_reposted_posts(
    home: Open, api: Api, users: Users
) -> None:
    home()
    users.followees["alice"] = ["bob", "dave"]
    users.hidden["alice"] = ["dave", "carol"]
    stream = home()
    api.write("dave", "By dave")
    api.repost("bob", api.write("carol", "By carol"))
    api.write("bob", "By bob")

    assert stream.waits_for_text("By bob") == ["By bob"]


def test_home_has_a_post_once_as_itself_where_its_author_is_followed(
    home: Open, api: Api, users: Users
) -> None:
    users.followees["alice"] = ["bob", "dave"]
    stream = home()
    api.repost("dave", api.write("bob", "By bob"))
    api.write("alice", "Last")

    assert stream.waits_for_text("Last") == ["By bob", "Last"]


def test_home_has_the_oldest_repost_of_a_post_only(home: Open, api: Api) -> None:
    stream = home()
    post_id = api.write("carol", "By carol")
    api.repost("bob", post_id)
    api.repost("alice", post_id)
    api.write("bob", "Last")

    assert stream.waits_for_text("Last") == ["By carol", "Last"]


def test_home_tells_of_the_deletion_of_a_repost(home: Open, api: Api) -> None:
    stream = home()
    post_id = api.write("carol", "By carol")
    repost_id = api.repost("bob", post_id)
    stream.waits_for(1)
    api.call("DELETE", f"/posts/id/{post_id}/repost", "bob")

    assert stream.waits_for(2)[1][1:] == ("delete", {"id": repost_id})


def test_a_follow_takes_effect_while_streaming(home: Open, api: Api, users: Users) -> None:
    stream = home()
    users.followees["alice"] = ["bob", "carol"]

    def carol_is_shown() -> bool:
        api.write("carol", "By carol")
        return "By carol" in stream.texts()

    eventually(carol_is_shown)


def test_a_follow_takes_effect_in_a_stream_that_is_older_than_it_and_has_a_younger_one_beside_it(
    home: Open, api: Api, users: Users
) -> None:
    older = home()
    users.followees["alice"] = ["bob", "carol"]
    younger = home()

    def carol_is_shown() -> bool:
        api.write("carol", "By carol")
        return all("By carol" in stream.texts() for stream in (older, younger))

    eventually(carol_is_shown)


def test_a_mute_takes_effect_while_streaming(home: Open, api: Api, users: Users) -> None:
    stream = home()
    users.hidden["alice"] = ["bob"]

    def bob_is_hidden() -> bool:
        seen = len(stream.events)
        api.write("bob", "By bob")
        api.write("alice", "Since")
        eventually(lambda: len(stream.events) > seen and stream.texts()[-1] == "Since")
        return len(stream.events) == seen + 1

    eventually(bob_is_hidden)


def test_the_last_sources_stay_while_users_is_away(home: Open, api: Api, users: Users) -> None:
    stream = home()
    users.is_away = True
    asked = len(users.statuses)
    eventually(lambda: len(users.statuses) > asked)
    api.write("bob", "By bob")

    assert stream.waits_for_text("By bob") == ["By bob"]


def test_home_brings_notifications_as_a_get_has_them(home: Open, api: Api) -> None:
    stream = home()
    api.write("carol", "Hello", in_reply_to=api.write("alice", "First"))

    [_, event] = stream.waits_for(2)
    assert event.kind == "notification"
    assert event.data["actor"] == "carol"
    assert event.data == api.call("GET", "/notifications", "alice")[0]


def test_home_leaves_out_notifications_by_those_who_are_hidden(home: Open, api: Api, users: Users) -> None:
    users.hidden["alice"] = ["carol"]
    stream = home()
    post_id = api.write("alice", "First")
    api.repost("carol", post_id)
    api.repost("bob", post_id)

    assert [event.data.get("actor") for event in stream.waits_for(2)] == [None, "bob"]


def test_notifications_are_in_the_recipients_home_only(home: Open, listen: Open, api: Api) -> None:
    of_the_actor = listen(timeline="user", username="bob")
    public = listen(timeline="public")
    recipient = home()
    api.write("bob", "Hi", in_reply_to=api.write("alice", "First"))
    api.write("bob", "Last")
    for stream in (of_the_actor, public, recipient):
        stream.waits_for_text("Last")

    assert [one.kinds().count("notification") for one in (of_the_actor, public, recipient)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("query", "who", "status"),
    [
        ("", None, 401),
        ("timeline=home", None, 401),
        ("timeline=none", "alice", 422),
        ("timeline=tag", "alice", 422),
        ("timeline=tag&tag=1", "alice", 422),
        ("timeline=user", "alice", 422),
        ("timeline=user&username=a%20b", "alice", 422),
        ("timeline=user&username=nobody", "alice", 404),
        ("", "nobody", 404),
    ],
)
def test_a_stream_that_cannot_be_is_refused(
    api: Api, as_user: Headers, query: str, who: str | None, status: int
) -> None:
    assert api.client.get(f"/stream?{query}", headers=as_user(who) if who else {}).status_code == status


def test_home_is_for_users_only(api: Api, as_service: Headers) -> None:
    assert api.client.get("/stream", headers=as_service("likes")).status_code == 403


def test_a_bad_token_is_refused_where_none_is_needed(api: Api) -> None:
    answer = api.client.get("/stream?timeline=public", headers={"Authorization": "Bearer x"})

    assert answer.status_code == 401


def test_home_is_503_while_users_is_away(api: Api, as_user: Headers, users: Users) -> None:
    users.is_away = True

    assert api.client.get("/stream", headers=as_user("alice")).status_code == 503


def test_a_head_has_the_headers_and_an_end(api: Api) -> None:
    head = api.client.head("/stream?timeline=public")

    assert head.headers["Content-Type"].startswith("text/event-stream")
    assert api.client.get("/livez").status_code == 200  # on the same connection


def test_comments_come_while_nothing_else_does(listen: Open) -> None:
    stream = listen(timeline="public")

    eventually(lambda: stream.comments > 2)
    assert stream.events == []


def test_a_stream_is_resumed_without_gap_or_double(listen: Open, api: Api) -> None:
    with EventClient(api.client.base_url.port, timeline="public") as stream:
        for number in range(3):
            api.write("alice", f"Post {number}")
        first, second, _ = stream.waits_for(3)
    api.write("alice", "Missed")
    resumed = listen(timeline="public", last_id=first.id)
    api.write("alice", "Last")

    assert resumed.waits_for_text("Last") == ["Post 1", "Post 2", "Missed", "Last"]
    assert resumed.events[0].data == second.data


def test_a_stream_that_missed_many_pages_gets_them_all(
    listen: Open, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timelines_service.stream_log.PAGE", 2)
    with EventClient(api.client.base_url.port, timeline="public") as stream:
        api.write("alice", "First")
        [first] = stream.waits_for(1)
    texts = [f"Missed {number}" for number in range(7)]
    for one in texts:
        api.write("alice", one)
    resumed = listen(timeline="public", last_id=first.id)

    assert resumed.waits_for_text(texts[-1]) == texts


def test_what_was_deleted_meanwhile_comes_back_in_no_resumed_stream(listen: Open, api: Api) -> None:
    with EventClient(api.client.base_url.port, timeline="public") as stream:
        api.write("alice", "First")
        [first] = stream.waits_for(1)
    post_id = api.write("alice", "Regretted")
    api.delete("alice", post_id)
    resumed = listen(timeline="public", last_id=first.id)

    assert [event[1:] for event in resumed.waits_for(1)] == [("delete", {"id": post_id})]


@pytest.mark.parametrize(
    "last_id", ["1", "none", "-", "9" * 40, "0-1-1-0-0", "1-1,2-", "9-9-9-9-" + "9" * 19]
)
def test_an_event_that_is_not_known_resets_the_stream(listen: Open, api: Api, last_id: str) -> None:
    stream = listen(timeline="public", last_id=last_id)
    api.write("alice", "Since")

    [reset, post] = stream.waits_for(2)
    assert (reset.kind, reset.data, post.data["text"]) == ("reset", {}, "Since")


def test_an_event_of_more_than_fifteen_minutes_ago_resets_the_stream(listen: Open, api: Api) -> None:
    with EventClient(api.client.base_url.port, timeline="public") as stream:
        api.write("alice", "Long ago")
        [first] = stream.waits_for(1)
    position = Position.parse(first.id)
    assert position
    ids = [position._replace(at=position.at - RESUME_SECONDS + change) for change in (60, -60)]
    young, old = (listen(timeline="public", last_id=str(one)) for one in ids)
    api.write("alice", "Since")

    assert young.waits_for_text("Since") == ["Since"]
    assert [event.kind for event in old.waits_for(2)] == ["reset", "post"]


def test_a_stream_is_resumed_from_a_reset(listen: Open, api: Api) -> None:
    with EventClient(api.client.base_url.port, timeline="public", last_id="none") as stream:
        [reset] = stream.waits_for(1)
    api.write("alice", "Missed")
    resumed = listen(timeline="public", last_id=reset.id)

    assert resumed.waits_for_text("Missed") == ["Missed"]
    assert resumed.kinds() == ["post"]


def test_a_revoked_tokens_stream_ends(app: FastAPI, listen: Open, as_user: Headers, users: Users) -> None:
    users.followees["alice"] = []
    stream = listen(as_user("alice"))
    other = listen(timeline="public")
    revoked = Revocation(position=1, username="alice", jti=None, generation=1, expires_at=2**33)
    app.state.tokens._revocations.update(RevocationChanges(position=1, revocations=[revoked]))

    eventually(lambda: stream.is_over)
    assert not other.is_over


def test_a_stream_ends_when_its_token_expires(listen: Open, users: Users) -> None:
    users.followees["alice"] = []
    token = Tokens(DEFAULT_JWT_SECRET, "HS256", timedelta(seconds=2)).issue("alice")
    stream = listen({"Authorization": f"Bearer {token}"})

    eventually(lambda: stream.is_over)


def test_streams_end_when_the_process_is_about_to_stop(app: FastAPI, listen: Open) -> None:
    stream = listen(timeline="public")
    app.state.on_shutdown()

    eventually(lambda: stream.is_over)
    refused = listen(timeline="public")
    assert (refused.status, refused.response.headers["Retry-After"]) == (503, "2")


# Together, more than the buffers of two sockets hold.
MANY = text("""
    INSERT INTO posts (id, username, text, created_at)
    SELECT gen_random_uuid(), 'alice', repeat('x', 4000), now() FROM generate_series(1, 500)
""")


def test_a_client_that_does_not_read_is_cut_off(
    listen: Open, api: Api, store: TimelinesStore, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 1000)
    monkeypatch.setattr("common.server.protocol.WRITE_TIMEOUT_SECONDS", 0.1)
    listen(timeline="public", is_reading=False)
    reading = listen(timeline="tag", tag="last")
    for _ in range(12):
        store._database.rows(MANY, {})
    api.write("alice", "#last")

    reading.waits_for(1)
    eventually(lambda: not app.state.streams._drop_closed() and len(app.state.streams._streams) == 1)


def test_one_user_may_have_so_many_streams(
    listen: Open, as_user: Headers, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS_OF_A_USER", 2)
    users.followees |= {"alice": [], "bob": []}
    streams = [listen(as_user(username)) for username in ("alice", "alice", "alice", "bob")]

    assert [stream.status for stream in streams] == [200, 200, 429, 200]
    assert streams[2].response.headers["Retry-After"] == "2"


def test_one_process_may_have_so_many_streams(listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 2)
    streams = [listen(timeline="public") for _ in range(3)]

    assert [stream.status for stream in streams] == [200, 200, 503]


def test_a_stream_that_is_closed_makes_room(port: int, listen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STREAMS", 1)
    with EventClient(port, timeline="public"):
        pass

    eventually(lambda: listen(timeline="public").status == 200)


@pytest.fixture
def other(settings: TimelinesSettings, store: TimelinesStore) -> Iterator[int]:
    """Another instance on the same database; its port."""
    app = create_app(settings)
    app.state.store.prepare()
    with running(app, settings) as port:
        yield port


def test_a_stream_is_resumed_at_another_instance(port: int, other: int, api: Api) -> None:
    with EventClient(port, timeline="public") as stream:
        api.write("alice", "First")
        api.write("alice", "Second")
        first, _ = stream.waits_for(2)
    with EventClient(other, timeline="public", last_id=first.id) as resumed:
        api.write("alice", "Third")

        assert resumed.waits_for_text("Third") == ["Second", "Third"]
        assert resumed.events[0].id != first.id


def test_all_instances_give_an_event_to_their_streams(port: int, other: int, api: Api) -> None:
    with EventClient(port, timeline="public") as here, EventClient(other, timeline="public") as there:
        api.write("alice", "Hello")

        assert here.waits_for_text("Hello") == there.waits_for_text("Hello") == ["Hello"]
