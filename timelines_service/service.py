"""What takes more than the store: new posts, and timelines that depend on the users service."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from common.errors import Problem, Unavailable
from common.fields import new_id
from common.jobs.producer import Producer
from common.telemetry import metrics
from timelines_service import errors
from timelines_service.clients import HomeSources, PollsClient, UsersClient
from timelines_service.mentions import BATCH
from timelines_service.models import (
    AcceptedPost,
    Context,
    NewPost,
    Notification,
    NotificationKind,
    Post,
    PostCounts,
    QueuedPost,
)
from timelines_service.post_query import Page
from timelines_service.store import TimelinesStore
from timelines_service.tags import mentions
from timelines_service.threads import Reach

# What anybody may cause to be read with one request, and what a user may.
PUBLIC_REACH = Reach(ancestors=40, descendants=60, depth=20)
READERS_REACH = Reach(ancestors=4096, descendants=4096, depth=4096)


class Timelines:
    """Writes posts now or later, and reads timelines that need the users service. Threads may share it."""

    def __init__(
        self, store: TimelinesStore, queue: Producer, users: UsersClient, polls: PollsClient
    ) -> None:
        self._store = store
        self._queue = queue
        self._users = users
        self._polls = polls

    def write(self, username: str, new: NewPost, key: str | None) -> Post:
        """The post stored; the first one, when this key comes again.

        Raises NotFound, Forbidden for another's poll and between blocked users, Conflict for a poll in
        another post, Unprocessable, and Unavailable when the polls or users service cannot tell.
        """
        try:
            accepted = self._accepted(username, new)
        except Problem:
            # What was accepted the first time may not be so any more: the first post counts.
            if key and (first := self._store.first_with(key, _named(username, new))):
                return first
            raise
        post = self._store.add(accepted, key, self._mentioned(new.text))
        if post.id == accepted.id:
            metrics.posts.add("stored")
        return post

    def edit(self, post_id: UUID, username: str, text: str) -> None:
        """Replace a post's text. Raises NotFound, Forbidden, BadRequest."""
        self._store.edits.edit(post_id, username, text, self._mentioned(text))

    def _mentioned(self, text: str) -> list[str] | None:
        """The users whom a text mentions; None while the users service is away, for the worker to ask."""
        names = mentions(text)
        try:
            return self._users.existing(names) if names else []
        except Unavailable:
            return None

    def queue(self, username: str, new: NewPost) -> QueuedPost:
        """Leave the whole post to the worker. Raises as write, but not Unprocessable; QueueUnavailable."""
        post = self._accepted(username, new)
        if post.poll_id:
            self._store.require_free(post.poll_id)
        self._queue.put(post)
        metrics.posts.add("queued")
        return QueuedPost(id=post.id)

    def _accepted(self, username: str, new: NewPost) -> AcceptedPost:
        if new.poll_id and self._polls.author(new.poll_id) != username:
            raise errors.not_your_poll()
        parent = self._parent(username, new.in_reply_to) if new.in_reply_to else None
        return _named(username, new.model_copy(update={"in_reply_to": parent}))

    def _parent(self, username: str, post_id: UUID) -> UUID:
        """What a reply to this post answers. Raises NotFound, Forbidden, Unavailable."""
        parent, author = self._store.original_and_author(post_id)
        if author != username and author in self._users.last_sources(username).blocked:
            raise errors.blocked()
        return parent

    def by_user(
        self,
        username: str,
        page: Page,
        reader: str | None,
        *,
        with_replies: bool = True,
        with_reposts: bool = True,
    ) -> list[Post]:
        """Raises NotFound when there is no such user, and Unavailable."""
        found = self._store.newest_by_user(
            username, page, reader, with_replies=with_replies, with_reposts=with_reposts
        )
        return found or self._nothing_of(username)

    def tagged_by_user(
        self, username: str, tag: str, page: Page, reader: str | None, *, with_replies: bool
    ) -> list[Post]:
        """Raises NotFound when there is no such user, and Unavailable."""
        found = self._store.tags.posts_by_user(username, tag, page, reader, with_replies=with_replies)
        return found or self._nothing_of(username)

    def pinned_by_user(self, username: str, reader: str | None) -> list[Post]:
        """Raises NotFound when there is no such user, and Unavailable."""
        return self._store.pins.posts(username, reader) or self._nothing_of(username)

    def counts(self, usernames: Sequence[str]) -> list[PostCounts]:
        """One for each of these users, without those who do not exist, if the users service can tell."""
        counts = self._store.counts(usernames)
        idle = [one.username for one in counts if not one.posts_count]
        try:
            existing = self._users.existing(idle) if idle else []
        except Unavailable:
            return counts
        return [one for one in counts if one.posts_count or one.username in existing]

    def _nothing_of(self, username: str) -> list[Post]:
        if not self._users.exists(username):
            raise errors.user_not_found(username)
        return []

    def context(self, post_id: UUID, reader: str | None) -> Context:
        """The thread around a post, and more of it for a user. Raises NotFound."""
        original = self._store.original_of(post_id)
        reach = READERS_REACH if reader else PUBLIC_REACH
        return Context(
            ancestors=self._store.threads.ancestors(original, reach, reader),
            descendants=self._store.threads.descendants(original, reach, reader),
        )

    def notifications(
        self, username: str, page: Page, kinds: Sequence[NotificationKind]
    ) -> list[Notification]:
        """What the user was told, but for hidden users' doings. Raises Unavailable."""
        hidden = self._users.last_sources(username).hidden
        return self._store.inbox.page(username, page, kinds, hidden)

    def unread_notifications(self, username: str) -> int:
        """As notifications."""
        return self._store.inbox.unread(username, self._users.last_sources(username).hidden)

    def search(self, sought: str, page: Page, reader: str | None) -> list[Post]:
        """What is found for this reader. Raises Unavailable when it is not known who is hidden from them."""
        hidden = self._users.last_sources(reader).hidden if reader else ()
        return self._store.search.posts(sought, page, reader, hidden)

    def home(self, username: str, reader: str, page: Page, *, with_own: bool) -> list[Post]:
        """The posts of those whom the reader follows now. Raises Forbidden, NotFound, Unavailable."""
        if reader != username:
            raise errors.not_yours()
        sources = self.home_sources(username)
        shown = sources.shown | ({username} if with_own else set())
        return self._store.newest_by_users(list(shown), page, reader, sources.hidden)

    def home_sources(self, username: str) -> HomeSources:
        """Whose posts are in a user's home timeline. Raises NotFound, Unavailable."""
        return self._users.home_sources(username)


def _named(username: str, new: NewPost) -> AcceptedPost:
    """Named and dated when it is accepted: that is when it was written, and posts sort by it."""
    return AcceptedPost(id=new_id(), username=username, created_at=datetime.now(UTC), **dict(new))


class MentionResolver:
    """Finds the mentions of posts that were written while the users service was away, or queued."""

    def __init__(self, store: TimelinesStore, users: UsersClient) -> None:
        self._store = store
        self._users = users

    def resolve(self) -> bool:
        """Resolve the mentions of some posts; False when there are no more. Raises Unavailable."""
        posts = self._store.mentions.unresolved()
        names = dict.fromkeys(name for _, text in posts for name in mentions(text))
        existing = set(self._users.existing(list(names)))
        for post_id, text in posts:
            mentioned = [name for name in mentions(text) if name in existing]
            self._store.mentions.resolve(post_id, text, mentioned)
        return len(posts) == BATCH
