"""What the suite holds while its parts die one after the other. `bin/soak` does the same for longer."""

from pathlib import Path

import pytest

from tests.faults.fault_run import QUICK, ROLLING_RESTART, Fault, FaultRun, Report
from tests.faults.history import Answer, Model

SEED = 20


@pytest.fixture(scope="module")
def report(data: Path) -> Report:
    folder = data / "faults"
    folder.mkdir()
    report = FaultRun(folder, SEED).run(QUICK)
    print(report)
    return report


def test_every_fault_happened_under_load(report: Report) -> None:
    assert [event.fault for event in report.events] == QUICK
    assert report.history.acknowledged > 10 * len(QUICK)


def test_no_acknowledged_write_is_lost(report: Report) -> None:
    assert report.checker.lost == set()


def test_nothing_is_there_twice(report: Report) -> None:
    assert report.checker.doubled == set()


def test_no_answer_is_wrong(report: Report) -> None:
    assert report.wrong == []


def test_what_needs_nothing_that_is_away_never_fails(report: Report) -> None:
    assert report.failures() == []


def test_a_rolling_restart_fails_no_request(report: Report) -> None:
    restarts = [event for event in report.events if event.fault in ROLLING_RESTART]
    answers = [
        answer
        for answer in report.history.answers
        if any(event.injected <= answer.ended and answer.started <= event.healthy for event in restarts)
    ]

    assert answers
    assert [answer for answer in answers if answer.is_away] == []


def test_what_is_away_is_said_so_in_time(report: Report) -> None:
    assert report.slow_refusals == []


def test_all_is_well_soon_after_the_return_of_what_was_away(report: Report) -> None:
    # Within five seconds, and some for a machine on which all of it starts and is tested at once.
    assert report.longest_recovery < 20


def test_no_process_meets_what_it_does_not_expect(report: Report) -> None:
    assert report.bugs == []


def test_everybody_is_told_of_the_likes_of_their_posts(report: Report) -> None:
    assert report.unnotified == []


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
