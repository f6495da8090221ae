"""The timelines that can be streamed, and which events of the log each of them shows."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from timelines_service.clients import HomeSources
from timelines_service.stream_log import LogEvent


class Timeline(Protocol):
    """What a stream is of."""

    def shows(self, event: LogEvent, earlier: AbstractSet[str]) -> bool:
        """Whether the event belongs to it; `earlier` are the users who reposted the same post before."""
        ...


@dataclass(frozen=True)
class PublicTimeline:
    """Everybody's posts, without reposts and unlisted ones."""

    def shows(self, event: LogEvent, earlier: AbstractSet[str]) -> bool:
        return event.recipient is None and event.repost_of is None and not event.is_unlisted


@dataclass(frozen=True)
class TagTimeline:
    """The posts with a hashtag; also those that an edit takes it from."""

    tag: str

    def shows(self, event: LogEvent, earlier: AbstractSet[str]) -> bool:
        return self.tag in event.tags and not event.is_unlisted


@dataclass(frozen=True)
class UserTimeline:
    """A user's posts and reposts."""

    username: str

    def shows(self, event: LogEvent, earlier: AbstractSet[str]) -> bool:
        return event.recipient is None and event.username == self.username


class HomeTimeline:
    """What the users write whom somebody follows, what that user writes, and the user's notifications."""

    def __init__(self, username: str, sources: HomeSources) -> None:
        self.username = username
        self.update(sources)

    def update(self, sources: HomeSources) -> None:
        """Show what these sources have from now on."""
        self.sources = sources
        self._hidden = frozenset(sources.hidden)
        self._shown = sources.shown | {self.username}

    def shows(self, event: LogEvent, earlier: AbstractSet[str]) -> bool:
        """As a home timeline: a post is there once, as itself if its author is, else as the oldest repost."""
        if event.recipient is not None:
            return event.recipient == self.username and event.username not in self._hidden
        if event.username not in self._shown:
            return False
        if event.repost_of is None:
            return True
        author = event.original_author
        return author not in self._shown and author not in self._hidden and self._shown.isdisjoint(earlier)
