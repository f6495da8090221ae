"""What the suite holds while its parts die one after the other. `bin/soak` does the same for longer."""

from pathlib import Path

import pytest

from tests.faults.ledger import Answer, Truths
from tests.faults.ordeal import QUICK, ROLLING_RESTART, Fault, Ordeal, Report

SEED = 20


@pytest.fixture(scope="module")
def report(data: Path) -> Report:
    folder = data / "faults"
    folder.mkdir()
    report = Ordeal(folder, SEED).run(QUICK)
    print(report)
    return report


def test_every_fault_happened_under_load(report: Report) -> None:
    assert [blow.fault for blow in report.blows] == QUICK
    assert report.ledger.acknowledged > 10 * len(QUICK)


def test_no_acknowledged_write_is_lost(report: Report) -> None:
    assert report.survey.lost == set()


def test_nothing_is_there_twice(report: Report) -> None:
    assert report.survey.doubled == set()


def test_no_answer_is_wrong(report: Report) -> None:
    assert report.wrong == []


def test_what_needs_nothing_that_is_away_never_fails(report: Report) -> None:
    assert report.failures() == []


def test_a_rolling_restart_fails_no_request(report: Report) -> None:
    restarts = [blow for blow in report.blows if blow.fault in ROLLING_RESTART]
    answers = [
        answer
        for answer in report.ledger.answers
        if any(blow.struck <= answer.ended and answer.started <= blow.healed for blow in restarts)
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
    assert report.untold == []


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
    truths = Truths()
    truths.settle(("post", "alice"), True, _answer("like", 201))

    assert truths.missing(set()) == {("post", "alice")}
    assert truths.strange({("post", "alice"), ("post", "bob")}) == {("post", "bob")}


def test_what_was_neither_promised_nor_refused_may_be_found_or_not() -> None:
    truths = Truths()
    truths.settle(("post", "alice"), True, _answer("like", 504))
    truths.settle(("post", "alice"), False, _answer("unlike", 200))

    assert truths.missing(set()) == truths.strange({("post", "alice")}) == set()
