"""What keys are called: in a single Redis, and in a cluster, where those of one script share a slot."""

from uuid import UUID

LIKERS = "likes:post:"
LIKED = "likes:user:"
UNDONE = "likes:undone:"
MAILED = "likes:mailed:"
POPULAR = "likes:popular"
PENDING = "likes:owed"
UNLIKES = "likes:unlikes"
DELETED = "likes:deleted:"
DELETED_USERS = "likes:deleted_users"
# Of a copy to a cluster: how far it is, which keys have changed since, which of them are copied just now.
COPY = "likes:copy"
CHANGED = "likes:changed"
CHANGING = "likes:changing"
# Which copy it is: the cluster has that, too, once it has all likes.
COPY_ID = "likes:copy_id"
FILLED = "likes:filled"
# In the cluster: there until it has all likes.
FILLING = "likes:filling"

# Where each like is in a cluster, so it can never change.
BUCKETS = 64


class Keys:
    """Split, as a cluster has it: posts in buckets, a slot each, and each user's list in another slot."""

    def __init__(self, is_split: bool) -> None:
        self.is_split = is_split
        self.buckets = range(BUCKETS if is_split else 1)

    def bucket(self, post_id: UUID) -> int:
        # The last bits of an id are random.
        return post_id.int % len(self.buckets)

    def popular(self, bucket: int) -> str:
        return f"{POPULAR}{self._tag(bucket)}"

    def pending(self, bucket: int) -> str:
        return f"{PENDING}{self._tag(bucket)}"

    def unlikes(self, bucket: int) -> str:
        return f"{UNLIKES}{self._tag(bucket)}"

    def likers_of(self, bucket: int) -> str:
        """What the keys of a bucket's likers begin with."""
        return f"{LIKERS}{self._tag(bucket)}"

    def likers(self, post_id: UUID) -> str:
        return self._of_post(LIKERS, post_id)

    def mailed(self, post_id: UUID) -> str:
        return self._of_post(MAILED, post_id)

    def deleted(self, post_id: UUID) -> str:
        return self._of_post(DELETED, post_id)

    def undone(self, post_id: UUID, username: str | None) -> str:
        """Where an undone like was among the post's likers."""
        return f"{self._of_post(UNDONE, post_id)}:{username}"

    def liked(self, username: str) -> str:
        return f"{LIKED}{self._user(username)}"

    def undone_of(self, username: str, post_id: UUID | str | None) -> str:
        """Where an undone like was among the user's likes."""
        return (
            f"{UNDONE}{self._user(username)}:{post_id}" if self.is_split else f"{UNDONE}{post_id}:{username}"
        )

    def deleted_user(self, username: str) -> str:
        """Of a cluster: there for a user who is deleted."""
        return f"{DELETED_USERS}{self._user(username)}"

    def _of_post(self, prefix: str, post_id: UUID) -> str:
        return f"{prefix}{self._tag(self.bucket(post_id))}{post_id}"

    def _tag(self, bucket: int) -> str:
        return f"{{b{bucket}}}" if self.is_split else ""

    def _user(self, username: str) -> str:
        return f"{{{username}}}" if self.is_split else username
