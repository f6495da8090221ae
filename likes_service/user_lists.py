"""In a cluster, what users like: each user's list is in a slot of its own, and follows the posts' likers.

A change comes with the time of its like. It may come twice, late, and in any
order: a like counts for less than its own undoing, and both for less than a
later like.
"""

from collections.abc import Sequence
from uuid import UUID

from common.tokens import invalid_token
from likes_service import scripts
from likes_service.connection import Commands, Script
from likes_service.keys import Keys

# A post, and when it was liked, in microseconds.
Like = tuple[UUID | str, int | str]


class UserLists:
    """Raises the outages of Redis."""

    def __init__(self, client: Commands, keys: Keys) -> None:
        self._redis = client
        self._keys = keys
        self._newest = Script(scripts.NEWEST)
        self._add = Script(scripts.LIST)
        self._remove = Script(scripts.UNLIST)

    def newest(self, username: str) -> int:
        """When the user's newest like was, in microseconds; 0 without any. Raises Unauthorized if deleted."""
        keys = [self._keys.liked(username), self._keys.deleted_user(username)]
        if (found := self._newest.run(self._redis, keys)) is None:
            raise invalid_token()
        return int(found)

    def add(self, username: str, like: Like) -> bool:
        """Whether there is such a user, who is not deleted."""
        post_id, at = like
        keys = [
            self._keys.liked(username), self._keys.undone_of(username, post_id),
            self._keys.deleted_user(username),
        ]  # fmt: skip
        return self._add.run(self._redis, keys, [str(post_id), at]) is not None

    def remove(self, likes: Sequence[tuple[str, Like]]) -> None:
        """Take likes out of the lists of these users."""
        calls = [
            ([self._keys.liked(username), self._keys.undone_of(username, post_id)], [str(post_id), at])
            for username, (post_id, at) in likes
        ]
        self._remove.run_all(self._redis, calls)

    def is_closed(self, username: str) -> bool:
        return bool(self._redis.execute_command("EXISTS", self._keys.deleted_user(username)))

    def close(self, username: str) -> None:
        """Nothing is added to this user's list from now on."""
        self._redis.execute_command("SET", self._keys.deleted_user(username), 1)
