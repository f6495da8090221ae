"""What the faults' own bookkeeping takes for excused, for lost and for wrong."""

import pytest

from tests.faults.fault_run import Fault
from tests.faults.history import Answer, Model


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
    ],
)
def test_only_what_needs_the_missing_part_may_fail(
    fault: Fault, kind: str, status: int, is_excused: bool
) -> None:
    assert fault.excuses(_answer(kind, status)) is is_excused


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
