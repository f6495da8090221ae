"""The faults of `bin/soak --cluster`, which nothing runs here: each can be done, undone and read about."""

from pathlib import Path

import pytest

from tests.faults.cluster import ClusterSuite
from tests.faults.faults import CLUSTER_DAYS, DAYS, REVERTED_BY, Days, Fault, shuffled
from tests.faults.processes import Suite

SCALING = Path("docs/scaling.md").read_text()


def _faults(days: Days) -> list[Fault]:
    return [fault for day in days for fault in day]


@pytest.mark.parametrize(("kind", "days"), [(Suite, DAYS), (ClusterSuite, CLUSTER_DAYS)])
def test_every_fault_can_be_done_and_undone(kind: type[Suite], days: Days, tmp_path: Path) -> None:
    parts = kind(tmp_path).parts
    needed = {
        (name, verb)
        for fault in _faults(days)
        for name in fault.parts
        for verb in (fault.verb, REVERTED_BY[fault.verb])
    }

    assert {(name, verb) for name, verb in needed if not callable(getattr(parts[name], verb, None))} == set()


def test_every_part_of_a_cluster_that_has_a_successor_is_lost(tmp_path: Path) -> None:
    """The workers are restarted; the stand-ins for DynamoDB and a mail server are one each."""
    lost = {part.partition(".")[0] for fault in _faults(CLUSTER_DAYS) for part in fault.parts}

    assert {name.partition(".")[0] for name in ClusterSuite(tmp_path).parts} - lost == {"dynamodb", "mail"}


@pytest.mark.parametrize("title", sorted({fault.title for fault in _faults(CLUSTER_DAYS)}))
def test_what_a_fault_of_a_cluster_costs_is_documented(title: str) -> None:
    assert f"| {title} " in SCALING


def test_what_is_done_in_one_go_stays_together() -> None:
    faults, rollout = shuffled(1, CLUSTER_DAYS), CLUSTER_DAYS[-1]
    once = [next(faults).parts for _ in _faults(CLUSTER_DAYS)]
    begin = once.index(rollout[0].parts)

    assert once[begin : begin + len(rollout)] == [fault.parts for fault in rollout]
