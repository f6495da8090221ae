"""Polls and votes of version 1.0, listed by their user, so that the deletion of an account finds them.

One pass over the table, a page at a time, beside the requests. The table says how
far it has come: any process goes on from there, and of two at one page, one is first.
"""

from contextlib import suppress

from polls_service import items
from polls_service.dynamodb import ConditionFailed, DynamoTable, Item, key

# Each with a check that what it lists is there: a transaction takes twice as many.
ENTRIES_AT_ONCE = 50
EXISTS = "attribute_exists(pk)"


class ListBackfill:
    """Threads may share it."""

    def __init__(self, table: DynamoTable) -> None:
        self._table = table
        self._is_done = False

    def is_done(self) -> bool:
        """Whether every poll and every vote is in the list of its user."""
        return self._is_done or "is_done" in self._progress()

    def skip(self) -> None:
        """Take the pass as done: the table is new."""
        self._table.put(items.BACKFILL | {"is_done": {"BOOL": True}})

    def step(self) -> None:
        """List what one more page of the table has, unless all is done. Raises the table's outages."""
        if self._is_done or "is_done" in (progress := self._progress()):
            return
        pages_read = int(progress.get("pages_read", {}).get("N", 0))
        found, rest = self._table.scan(progress.get("next_key", {}).get("M"), "created_by")
        # Else another process was faster, or something was deleted meanwhile: the next step reads anew.
        with suppress(ConditionFailed):
            self._list(found)
            self._table.transact([{"Update": items.backfill_update(pages_read + 1, rest)}])

    def _progress(self) -> Item:
        progress = self._table.get(items.BACKFILL) or {}
        self._is_done = "is_done" in progress
        return progress

    def _list(self, found: list[Item]) -> None:
        """Add the entries that these items lack. Raises ConditionFailed when one of them is gone."""
        listed = {items.place(entry): item for item in found if (entry := items.owner_entry(item))}
        entries = self._table.get_all([key(*place) for place in listed])
        missing = list(listed.keys() - set(map(items.place, entries)))
        for first in range(0, len(missing), ENTRIES_AT_ONCE):
            writes: list[dict[str, Item]] = []
            for place in missing[first : first + ENTRIES_AT_ONCE]:
                source = key(*items.place(listed[place]))
                writes.append({"ConditionCheck": {"Key": source, "ConditionExpression": EXISTS}})
                writes.append({"Put": {"Item": key(*place)}})
            self._table.transact(writes)
