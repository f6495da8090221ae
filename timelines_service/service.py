"""What takes more than the store: new posts, and timelines that depend on the users service."""

from datetime import UTC, datetime
from uuid import UUID

from common.fields import new_id
from common.jobs.queue import JobQueue
from timelines_service import errors
from timelines_service.clients import UsersClient
from timelines_service.models import Post, QueuedPost
from timelines_service.store import TimelinesStore


class Timelines:
    """Writes posts now or later, and reads timelines that need the users service. Threads may share it."""

    def __init__(self, store: TimelinesStore, queue: JobQueue, users: UsersClient) -> None:
        self._store = store
        self._queue = queue
        self._users = users

    def write(self, username: str, text: str, key: str | None) -> Post:
        """The post stored; the first one, when this key comes again. Raises Unprocessable."""
        return self._store.add(_new_post(username, text), key)

    def queue(self, username: str, text: str) -> QueuedPost:
        """Leave the whole post to the worker. Raises QueueUnavailable."""
        post = _new_post(username, text)
        self._queue.put(post)
        return QueuedPost(id=post.id)

    def by_user(self, username: str, limit: int, before: UUID | None) -> list[Post]:
        """Raises NotFound when there is no such user, and Unavailable."""
        found = self._store.newest_by_user(username, limit, before)
        if not found and not self._users.exists(username):
            raise errors.user_not_found(username)
        return found

    def home(self, username: str, reader: str, limit: int, before: UUID | None) -> list[Post]:
        """The posts of those whom the reader follows now. Raises Forbidden, NotFound, Unavailable."""
        if reader != username:
            raise errors.not_yours()
        return self._store.newest_by_users(self._users.followees(username), limit, before)


def _new_post(username: str, text: str) -> Post:
    # Named and dated when it is accepted: that is when it was written, and posts sort by it.
    return Post(id=new_id(), username=username, text=text, created_at=datetime.now(UTC))
