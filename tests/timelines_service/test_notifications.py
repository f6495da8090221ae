"""What users are told, once for each cause, in whatever order the causes come."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from timelines_service.events import FollowChanged
from timelines_service.store import TimelinesStore

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
STANDING = text("SELECT recipient, kind, actor FROM notifications WHERE NOT is_withdrawn")


def _change(kind: str, minutes: int) -> FollowChanged:
    at = FIRST + timedelta(minutes=minutes)
    return FollowChanged(kind=kind, follower="bobby", followee="alice", at=at)


def _standing(store: TimelinesStore, *changes: FollowChanged) -> list[tuple[str, str, str]]:
    for change in changes:
        store.events.apply(change)
    return [tuple(row) for row in store._database.rows(STANDING, {})]


TOLD = [("alice", "follow", "bobby")]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([("followed", 1), ("followed", 1)], TOLD),
        ([("followed", 1), ("unfollowed", 2)], []),
        ([("unfollowed", 2), ("followed", 1)], []),
        ([("followed", 1), ("unfollowed", 2), ("followed", 1)], []),
        ([("followed", 1), ("unfollowed", 2), ("followed", 3)], TOLD),
        ([("followed", 3), ("unfollowed", 2), ("followed", 1)], TOLD),
    ],
)
def test_the_newest_change_counts_however_often_and_in_whatever_order_they_come(
    store: TimelinesStore, kinds: list[tuple[str, int]], expected: list[tuple[str, str, str]]
) -> None:
    assert _standing(store, *(_change(*kind) for kind in kinds)) == expected
