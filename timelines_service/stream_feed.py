"""The log as streams are sent it: each event with its post, written once for all of them."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from pydantic import TypeAdapter

from common.api import events
from timelines_service.models import DeletedPost, Post
from timelines_service.store import TimelinesStore
from timelines_service.stream_log import LogEvent, LogPage, Position
from timelines_service.stream_timelines import NOBODY

POST = TypeAdapter(Post)
DELETED = TypeAdapter(DeletedPost)


class Entry(NamedTuple):
    """An event as it is sent, and what decides which streams show it."""

    event: LogEvent
    text: bytes
    earlier_reposters: AbstractSet[str] = NOBODY


class Page(NamedTuple):
    """Entries in the order of the log, and where the next page begins if there is one."""

    entries: list[Entry]
    rest: Position | None


class StreamFeed:
    """Reads what streams are sent. Threads may share it."""

    def __init__(self, store: TimelinesStore) -> None:
        self._store = store
        self.outages = store.outages
        self.now = store.stream_log.now

    def since(self, read_to: Position) -> tuple[Page, Position]:
        """The first page of what has come since the end that the log had, and the end that it has."""
        page, end = self._store.stream_log.since(read_to.within)
        return self._of(page), end

    def after(self, position: Position) -> Page:
        """The next page of what a position is within."""
        return self._of(self._store.stream_log.after(position))

    def _of(self, page: LogPage) -> Page:
        return Page(self._entries(page.events), page.rest)

    def _entries(self, found: Sequence[LogEvent]) -> list[Entry]:
        ids = {event.post_id for event in found if event.kind != "delete"}
        posts = {post.id: post for post in self._store.posts(list(ids))} if ids else {}
        earlier = self._store.reposts.earlier_reposters([one.id for one in posts.values() if one.repost_of])
        entries = []
        for event in found:
            if event.kind == "delete":
                data = DELETED.dump_json(DeletedPost(id=event.post_id))
            elif post := posts.get(event.post_id):
                data = POST.dump_json(post)
            else:
                continue  # deleted since: that is an event of its own
            text = events.event(event.position, event.kind, data)
            entries.append(Entry(event, text, earlier.get(event.post_id, NOBODY)))
        return entries
