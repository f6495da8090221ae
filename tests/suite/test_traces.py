"""What an operator finds of one request, of all processes that it has to do with."""

import pytest

from tests.otlp_receiver import Receiver, Seen
from tests.polling import eventually
from tests.suite.conftest import Suite

pytestmark = pytest.mark.starts

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(scope="module")
def like(suite: Suite) -> Receiver:
    """What has become of a like, when its mail is out."""
    author, reader = suite.sign_up("traced_author"), suite.sign_up("traced_reader")
    post = suite.gateway.post("/posts", json={"text": "Follow me!"}, headers=author).json()
    suite.gateway.post(f"/likes/{post['id']}", headers=reader | sent(TRACE_ID)).raise_for_status()
    suite.traces.wait_for("send mail", TRACE_ID)
    return suite.traces


def sent(trace_id: str) -> dict[str, str]:
    """The headers of a request in this trace."""
    return {"traceparent": f"00-{trace_id}-{SPAN_ID}-01"}


def ancestors(traces: Receiver, span: Seen) -> list[tuple[str, str, str]]:
    """Service, kind and name of a span, of its parent, and so on up to the client's span."""

    def look() -> list[Seen]:
        by_id, found = {one.position[1]: one for one in traces.spans(span.trace_id)}, [span]
        while parent := by_id.get(found[-1].parent_id):
            found.append(parent)
        return found if found[-1].parent_id == SPAN_ID else []

    # Processes export at their own times.
    return [(one.service, one.kind, one.name) for one in eventually(look)]


def test_a_like_is_one_trace_from_the_client_to_the_mail(like: Receiver) -> None:
    assert ancestors(like, like.wait_for("send mail", TRACE_ID)) == [
        ("likes_notification_worker", "CLIENT", "send mail"),
        ("likes_notification_worker", "CONSUMER", "process likes.notify"),
        ("likes_validation_worker", "PRODUCER", "put likes.notify"),
        ("likes_validation_worker", "CONSUMER", "process likes.validate"),
        ("likes", "PRODUCER", "put likes.validate"),
        ("likes", "SERVER", "POST /likes/{post_id}"),
        ("gateway", "CLIENT", "POST"),
        ("gateway", "SERVER", "POST /likes/{post_id}"),
    ]


@pytest.mark.parametrize(
    ("service", "name", "ancestor"),
    [
        ("likes", "EVALSHA", ("likes", "SERVER", "POST /likes/{post_id}")),
        ("timelines", "SELECT", ("likes_validation_worker", "CLIENT", "GET")),
        ("users", "SELECT", ("likes_notification_worker", "CLIENT", "GET")),
    ],
)
def test_what_it_takes_of_stores_and_services_is_in_the_same_trace(
    like: Receiver, service: str, name: str, ancestor: tuple[str, str, str]
) -> None:
    def look() -> list[Seen]:
        return [one for one in like.spans(TRACE_ID) if (one.service, one.name) == (service, name)]

    assert ancestor in ancestors(like, eventually(look)[0])


def test_a_poll_is_traced_to_dynamodb(suite: Suite) -> None:
    author, poll = suite.sign_up("traced_pollster"), {"question": "?", "options": ["a", "b"]}
    suite.gateway.post("/polls", json=poll, headers=author | sent("9" * 32)).raise_for_status()

    written = suite.traces.wait_for("transact_write_items", "9" * 32)
    assert (written.service, written.kind) == ("polls", "CLIENT")
    assert written.attributes["db.system.name"] == "aws.dynamodb"


def test_an_event_is_put_in_the_trace_of_its_cause_and_linked_where_it_is_applied(suite: Suite) -> None:
    reader, _ = suite.sign_up("traced_follower"), suite.sign_up("traced_followee")
    path = "/users/follow/traced_followee"
    suite.gateway.post(path, headers=reader | sent("8" * 32)).raise_for_status()

    put = suite.traces.wait_for("put events.timelines", "8" * 32)

    assert put.service == "users"
    assert eventually(lambda: [one for one in suite.traces.spans() if put.position in one.links])


def test_machines_that_keep_the_suite_running_leave_no_traces(suite: Suite) -> None:
    spans = suite.traces.spans()
    paths = {one.attributes.get("url.path", "") for one in spans}

    assert not [one for one in spans if one.service == "registry"]
    assert not [path for path in paths if path.startswith(("/health", "/metrics", "/revocations"))]
