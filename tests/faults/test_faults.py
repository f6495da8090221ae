"""What the suite holds while its parts die one after the other. `bin/soak` does the same for longer."""

from pathlib import Path

import pytest

from tests.faults.fault_run import FaultRun, Report
from tests.faults.faults import QUICK, ROLLING_RESTART
from tests.faults.processes import Suite

pytestmark = pytest.mark.kills

SEED = 20


@pytest.fixture(scope="module")
def report(data: Path) -> Report:
    folder = data / "faults"
    folder.mkdir()
    report = FaultRun(Suite(folder), SEED).run(QUICK)
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
    assert report.slow_recoveries == []


def test_no_process_meets_what_it_does_not_expect(report: Report) -> None:
    assert report.bugs == []


def test_mails_are_deferred(report: Report) -> None:
    assert "deferred until" in dict(report.logs)["likes_notification_worker"]


def test_everybody_is_told_of_the_likes_of_their_posts(report: Report) -> None:
    assert report.unnotified == []
