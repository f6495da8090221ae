"""Live streams: one reader of the log, which hands each event to all streams of this process that show it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from typing import Self

from anyio import to_thread

from common.api import events
from common.errors import Problem
from timelines_service import errors
from timelines_service.clients import HomeSources, UsersClient
from timelines_service.stream_feed import Entry, EntryPage, StreamFeed
from timelines_service.stream_log import Position
from timelines_service.stream_timelines import HomeTimeline, Timeline

logger = logging.getLogger(__name__)

# From a commit to its event it takes this at most, and the reading. Why not LISTEN: decision 12.
POLL_SECONDS = 0.1
OUTAGE_PAUSE_SECONDS = 1.0
TICK_SECONDS = 1.0
TICKS_A_COMMENT = 3
# A token that is revoked is known here within two seconds, and its stream ends within five.
TICKS_A_CHECK = 2
REFRESH_SECONDS = 2.0

MAX_STREAMS = 3000
MAX_STREAMS_OF_A_USER = 1500
# A client that is this far behind does not read. The events themselves are shared by all streams.
MAX_WAITING = 5000
# How many of them are on their way at once.
CHUNK = 32
# Each stream that is resumed reads the log for itself: not all at once, after a restart.
MAX_RESUMING = 2


class Stream:
    """What one client is still to be sent."""

    def __init__(self, timeline: Timeline, username: str | None, may_go_on: Callable[[], bool]) -> None:
        self.timeline = timeline
        self.username = username
        self.may_go_on = may_go_on
        self.is_closed = False
        self.ticks = 0
        # Of a stream that is resumed: it comes before all that is put.
        self.missed: AsyncIterator[bytes] | None = None
        self._waiting: list[bytes] = []
        self._change: asyncio.Future[None] | None = None

    def shows(self, entry: Entry) -> bool:
        return self.timeline.shows(entry.event, entry.earlier_reposters)

    def put(self, text: bytes) -> None:
        """Send this when all before is sent. A client that does not read is cut off."""
        if len(self._waiting) >= MAX_WAITING:
            self.close()
        elif not self.is_closed:
            self._waiting.append(text)
            self._wake()

    def close(self) -> None:
        """End it. A client that resumes it gets what still waits."""
        self.is_closed = True
        self._waiting.clear()
        self._wake()

    def _wake(self) -> None:
        if self._change and not self._change.done():
            self._change.set_result(None)

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is put, as it comes, until the stream is closed."""
        yield events.COMMENT
        if self.missed:
            async for chunk in self.missed:
                yield chunk
        while not self.is_closed:
            if self._waiting:
                chunk = b"".join(self._waiting[:CHUNK])
                del self._waiting[:CHUNK]
                yield chunk
            else:
                self._change = asyncio.get_running_loop().create_future()
                await self._change


class Streams:
    """All streams of this process, and what feeds, checks and ends them."""

    def __init__(self, feed: StreamFeed, users: UsersClient) -> None:
        self._feed = feed
        self._users = users
        self._streams: set[Stream] = set()
        self._is_stopping = False

    async def __aenter__(self) -> Self:
        self._read_to: Position | None = None
        # Of what has been read until then: what is still to be handed on.
        self._rest: Position | None = None
        self._turn = asyncio.Lock()
        self._resuming = asyncio.Semaphore(MAX_RESUMING)
        self._is_wanted = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._repeat(work, seconds))
            for work, seconds in (
                (self._read, POLL_SECONDS),
                (self._tick, TICK_SECONDS),
                (self._refresh_homes, REFRESH_SECONDS),
            )
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _repeat(self, work: Callable[[], Awaitable[object]], seconds: float) -> None:
        while True:
            await self._is_wanted.wait()
            try:
                await work()
            except (*self._feed.outages, Problem) as exc:
                # Requests tell of it, too.
                logger.debug("streams wait: %r", exc)
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            except Exception:  # the next attempt may do
                logger.exception("streams cannot be fed")
                await asyncio.sleep(OUTAGE_PAUSE_SECONDS)
            await asyncio.sleep(seconds)

    def stop(self) -> None:
        """End all streams: the process is about to stop, and clients resume elsewhere."""
        self._is_stopping = True
        for stream in self._streams:
            stream.close()

    async def open(self, stream: Stream, last_event_id: str | None) -> None:
        """Send a stream what comes from now on, or what has come since an event.

        Raises TooManyRequests, Unavailable, and the store's outages.
        """
        # Another instance may have sent an event that this one has not read yet.
        end = await self._read()
        self._require_room(stream.username)
        self._streams.add(stream)
        self._is_wanted.set()
        if last_event_id:
            position = Position.parse(last_event_id)
            if position is None or position.is_lost(end):
                stream.put(_reset(end))
            else:
                stream.missed = self._missed(stream, position, end)

    def _require_room(self, username: str | None) -> None:
        if self._is_stopping:
            raise errors.leaving()
        self._drop_closed()
        if len(self._streams) >= MAX_STREAMS:
            raise errors.no_room_for_streams()
        if username and sum(one.username == username for one in self._streams) >= MAX_STREAMS_OF_A_USER:
            raise errors.too_many_streams()

    def _drop_closed(self) -> None:
        self._streams = {stream for stream in self._streams if not stream.is_closed}
        if not self._streams:
            self._is_wanted.clear()

    async def _read(self) -> Position:
        """Hand on what has come to the log; the end that the log has now."""
        async with self._turn:
            if self._read_to is None or not self._streams:
                self._read_to, self._rest = await to_thread.run_sync(self._feed.now), None
                return self._read_to
            await self._read_rest()
            page, end = await to_thread.run_sync(self._feed.since, self._read_to)
            if self._read_to.is_lost(end):
                page = EntryPage([], None)
                for stream in self._streams:
                    stream.put(_reset(end))
            # Noted first: the next turn goes on from here if the store fails before the rest is read.
            self._read_to, self._rest = end, page.rest
            await self._hand_on(page)
            await self._read_rest()
            return end

    async def _read_rest(self) -> None:
        while self._rest:
            page = await to_thread.run_sync(self._feed.after, self._rest)
            self._rest = page.rest
            await self._hand_on(page)

    async def _hand_on(self, page: EntryPage) -> None:
        for entry in page.entries:
            for stream in self._streams:
                if stream.shows(entry):
                    stream.put(entry.text)
            # A page is long for a client: let it be sent meanwhile, and other requests be served.
            await asyncio.sleep(0)

    async def _missed(self, stream: Stream, position: Position, end: Position) -> AsyncIterator[bytes]:
        """What a stream has missed: from a position to the end that the log had when it was opened."""
        for start in (position, position.followed_by(end)):
            rest: Position | None = start
            while rest and not stream.is_closed:
                try:
                    async with self._resuming:
                        page = await to_thread.run_sync(self._feed.after, rest)
                except self._feed.outages:
                    stream.close()
                    return
                texts = [entry.text for entry in page.entries if stream.shows(entry)]
                for first in range(0, len(texts), CHUNK):
                    yield b"".join(texts[first : first + CHUNK])
                rest = page.rest

    async def _tick(self) -> None:
        """End the streams of tokens that are not valid any more, and let the others say that they go on."""
        self._drop_closed()
        for stream in self._streams:
            stream.ticks += 1
            if stream.ticks % TICKS_A_CHECK == 0 and not stream.may_go_on():
                stream.close()
            elif stream.ticks % TICKS_A_COMMENT == 0:
                stream.put(events.COMMENT)

    async def _refresh_homes(self) -> None:
        """Let follows, blocks and mutes take effect."""
        homes = [one.timeline for one in self._streams if isinstance(one.timeline, HomeTimeline)]
        # Not one version a user: of two streams, one may have begun before a follow.
        known = {(home.username, home.sources.version) for home in homes}
        changed = await to_thread.run_sync(self._changed_sources, known)
        for home in homes:
            if sources := changed.get(home.username):
                home.update(sources)

    def _changed_sources(self, known: AbstractSet[tuple[str, str]]) -> dict[str, HomeSources]:
        current = self._users.home_versions(list({username for username, _ in known}))
        changed = {username for username, version in known if current.get(username, version) != version}
        return {username: self._users.home_sources(username) for username in changed}


def _reset(end: Position) -> bytes:
    """Say that events are missing. The client reads the timeline anew, and resumes from here."""
    return events.event(end, "reset", b"{}")
