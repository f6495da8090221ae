"""Polls whose end is to be told: found when it has come, by one of the processes."""

from datetime import UTC, datetime, timedelta
from itertools import islice

from common.jobs.producer import Producer
from common.telemetry import context
from polls_service import items
from polls_service.dynamodb import ConditionFailed, DynamoTable, Item
from polls_service.models import PollOver

# For putting one job. A process that is killed meanwhile leaves the poll to the others after that.
CLAIM = timedelta(seconds=10)
AT_ONCE = 100


class Endings:
    """Queues the work that the end of a poll causes. Threads may share it."""

    def __init__(self, table: DynamoTable) -> None:
        self._table = table

    def queue_due(self, queue: Producer) -> None:
        """Queue what is due: each poll at least once. Raises outages of both servers."""
        now = datetime.now(UTC)
        for entry in islice(self._table.keys_until(items.ENDINGS, items.instant(now)), AT_ONCE):
            if self._claim(entry, now):
                context.start_unprompted()
                poll_id, at = items.ending(entry)
                queue.put(PollOver(poll_id=poll_id, at=at))
                self._table.delete_all([entry])

    def _claim(self, entry: Item, now: datetime) -> bool:
        try:
            self._table.transact([{"Update": items.claim_update(entry, now, now + CLAIM)}])
        except ConditionFailed:
            return False
        return True
