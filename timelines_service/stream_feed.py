"""The log as streams are sent it: each event with its post, written once for all of them."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple
from uuid import UUID

from pydantic import BaseModel

from common.api import events
from timelines_service.models import DeletedPost, Notification, Post
from timelines_service.store import TimelinesStore
from timelines_service.stream_log import LogEvent, LogPage, Position

NOBODY: frozenset[str] = frozenset()


class Entry(NamedTuple):
    """An event as it is sent, and what decides which streams show it."""

    event: LogEvent
    text: bytes
    earlier_reposters: AbstractSet[str] = NOBODY


class EntryPage(NamedTuple):
    """Entries in the order of the log, and where the next page begins if there is one."""

    entries: list[Entry]
    rest: Position | None


class StreamFeed:
    """Reads what streams are sent. Threads may share it."""

    def __init__(self, store: TimelinesStore) -> None:
        self._store = store
        self.outages = store.outages
        self.now = store.stream_log.now

    def since(self, read_to: Position) -> tuple[EntryPage, Position]:
        """The first page of what has come since the end that the log had, and the end that it has."""
        page, end = self._store.stream_log.since(read_to.within)
        return self._of(page), end

    def after(self, position: Position) -> EntryPage:
        """The next page of what a position is within."""
        return self._of(self._store.stream_log.after(position))

    def _of(self, page: LogPage) -> EntryPage:
        return EntryPage(self._entries(page.events), page.rest)

    def _entries(self, found: Sequence[LogEvent]) -> list[Entry]:
        ids: dict[str, list[UUID]] = {}
        for event in found:
            ids.setdefault(event.kind, []).append(event.item_id)
        posts = self._posts([*ids.get("post", ()), *ids.get("edit", ())])
        items: dict[UUID, BaseModel] = {post.id: post for post in posts}
        items |= {one.id: one for one in self._notifications(ids.get("notification", []))}
        earlier = self._store.reposts.earlier_reposters([one.id for one in posts if one.repost_of])
        entries = []
        for event in found:
            item = DeletedPost(id=event.item_id) if event.kind == "delete" else items.get(event.item_id)
            # None is deleted since, or taken back: of a post, that is an event of its own.
            if item is not None:
                text = events.event(event.position, event.kind, item.model_dump_json().encode())
                entries.append(Entry(event, text, earlier.get(event.item_id, NOBODY)))
        return entries

    def _posts(self, ids: list[UUID]) -> list[Post]:
        return self._store.posts(ids) if ids else []

    def _notifications(self, ids: list[UUID]) -> list[Notification]:
        return self._store.inbox.by_id(ids) if ids else []
