"""What the faults' own bookkeeping takes for excused, for lost and for wrong."""

import pytest

from tests.faults.faults import Fault
from tests.faults.history import Answer, Heard, History, Model


def _answer(kind: str, status: int) -> Answer:
    return Answer(kind, started=0, ended=1, status=status)


@pytest.mark.parametrize(
    ("fault", "kind", "status", "is_excused"),
    [
        (Fault("kill", ("redis",)), "like", 503, True),
        (Fault("kill", ("redis",)), "like", 500, False),
        (Fault("kill", ("redis",)), "post", 503, False),
        (Fault("kill", ("postgres",)), "async", 503, False),
        (Fault("kill", ("gateway",)), "like", 0, True),
        (Fault("kill", ("likes.1",)), "like", 502, True),
        (Fault("kill", ("likes.1",)), "like", 503, False),
        (Fault("kill", ("likes.1",)), "unlike", 502, False),
        (Fault("kill", ("likes.1", "likes.2")), "unlike", 503, True),
        (Fault("stop", ("likes.1",)), "like", 502, False),
        (Fault("kill", ("registry",)), "like", 503, False),
        (Fault("kill", ("gateway.1",)), "read", 0, True),
        (Fault("kill", ("gateway.1",)), "read", 503, False),
        (Fault("stop", ("gateway.1",)), "read", 0, False),
        (Fault("kill", ("beanstalkd.1",)), "async", 503, False),
        (Fault("kill", ("beanstalkd.1", "beanstalkd.2")), "async", 503, True),
        (Fault("kill", ("registry.1", "registry.2")), "like", 503, False),
        (Fault("lose", ("redis_cluster",)), "liked", 503, True),
        (Fault("move", ("redis_cluster",)), "like", 503, True),
        (Fault("move", ("redis_cluster",)), "liked", 503, False),
        (Fault("kill", ("standby",)), "post", 503, True),
        (Fault("stop", ("standby",)), "post", 503, False),
    ],
)
def test_only_what_needs_the_missing_part_may_fail(
    fault: Fault, kind: str, status: int, is_excused: bool
) -> None:
    assert fault.excuses(_answer(kind, status)) is is_excused


def test_an_outage_lasts_from_the_first_request_that_failed_to_the_last() -> None:
    failed = [("post", 8, 9, 503), ("post", 11, 12, 503), ("read", 12, 15, 503), ("read", 15, 16, 200)]
    history = History([Answer(*one) for one in failed])

    assert history.failing_seconds(10) == (3, 1)
    assert history.failing_seconds(14) == (1, 0)


def test_what_was_promised_last_must_be_found() -> None:
    model = Model()
    model.complete(("post", "alice"), True, _answer("like", 201))

    assert model.missing(set()) == {("post", "alice")}
    assert model.strange({("post", "alice"), ("post", "bob")}) == {("post", "bob")}


def test_what_was_neither_promised_nor_refused_may_be_found_or_not() -> None:
    model = Model()
    model.complete(("post", "alice"), True, _answer("like", 504))
    model.complete(("post", "alice"), False, _answer("unlike", 200))

    assert model.missing(set()) == model.strange({("post", "alice")}) == set()


STREAM = [("post", "a"), ("post", "b"), ("delete", "b"), ("notification", "n")]


def test_a_stream_that_has_brought_all_once_is_right() -> None:
    heard = Heard(STREAM)

    assert heard.missing("post", {"a", "b"}) == heard.missing("notification", {"n"}) == set()
    assert (heard.doubled(), heard.revived()) == (set(), set())


def test_an_event_that_did_not_come_is_missing() -> None:
    assert Heard(STREAM).missing("post", {"a", "c"}) == {("post", "c")}


def test_a_stream_that_begins_anew_misses_all() -> None:
    assert Heard([*STREAM, ("reset", "")]).missing("post", {"a"}) == {("post", "a")}


def test_an_event_that_came_again_is_doubled() -> None:
    assert Heard([*STREAM, ("notification", "n")]).doubled() == {("notification", "n")}


def test_a_post_that_came_after_its_deletion_is_revived() -> None:
    assert Heard([*STREAM, ("post", "b")]).revived() == {"b"}


@pytest.mark.parametrize(
    ("shown", "is_back"),
    [
        ({"id": "gone"}, True),
        ({"id": "repost", "repost_of": {"id": "gone"}}, True),
        ({"id": "other"}, False),
    ],
)
def test_a_deleted_post_is_back_as_itself_or_reposted(shown: dict[str, object], is_back: bool) -> None:
    assert History(deleted={"gone"}).shown_again([shown]) == ({"gone"} if is_back else set())


def test_what_is_about_a_post_that_may_be_deleted_need_not_be_there() -> None:
    pairs = {("gone", "alice"), ("stays", "alice")}

    assert History(deleting={"gone"}).lasting(pairs) == {("stays", "alice")}


@pytest.mark.parametrize("kind", ["like", "repost", "follow", "reply"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_dismissed_notification_is_back_unless_it_was_caused_again(kind: str, times: int) -> None:
    history = History()
    for _ in range(times):
        history.likes.complete(("post", "bob"), True, _answer("like", 201))
        history.reposts.complete(("post", "bob"), True, _answer("repost", 201))
        history.follows.complete(("bob", "alice"), True, _answer("follow", 200))
    told = ("alice", kind, "bob", None if kind == "follow" else "post")
    history.dismissed.add(told)

    assert history.revived([told]) == ({told} if times == 1 or kind == "reply" else set())
    assert history.revived([]) == set()
