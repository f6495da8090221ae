"""The response bodies of the likes service, and its jobs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter

from common.fields import Id, KnownId, KnownUsername, Username, is_none
from common.jobs.tubes import event_tube

VALIDATE_TUBE = "likes.validate"
NOTIFY_TUBE = "likes.notify"
EVENTS_TUBE, TIMELINES_TUBE, USERS_TUBE = event_tube("likes"), event_tube("timelines"), event_tube("users")


class LikeState(BaseModel):
    """Whether a user likes a post now, and whether this request changed that."""

    post_id: KnownId
    username: KnownUsername
    liked: bool
    changed: bool
    count: int


class PostLikes(BaseModel):
    """How many users like a post."""

    post_id: KnownId
    count: int


class PostLikesWithOwn(PostLikes):
    """How many users like a post, and whether the user who asks is one of them."""

    liked: bool


class Liker(BaseModel):
    """A user who likes a post, and since when."""

    username: KnownUsername
    liked_at: datetime


class LikedPost(BaseModel):
    """A post that a user likes, and since when."""

    post_id: KnownId
    liked_at: datetime


class Post(BaseModel):
    """A post, as the timelines service has it."""

    id: UUID
    username: Username
    text: str


class ValidateLike(BaseModel):
    """A job: find out whether the post exists, and tell of the like; or tell of the unlike at that time.

    A worker of the last version takes an unlike for a like that is complete.
    """

    post_id: Id
    username: Username
    unliked_at: AwareDatetime | None = Field(default=None, exclude_if=is_none)


class LikeChanged(BaseModel):
    """An event: a user likes a post since then, or does not any more."""

    kind: Literal["liked", "unliked"]
    username: Username
    post_id: Id
    at: AwareDatetime


class _Mail(BaseModel):
    """What the jobs of all mails have. `deferred_since` is when the mail server first deferred it."""

    post_id: Id
    username: Username
    deferred_since: AwareDatetime | None = None


class Liked(_Mail):
    """A job: mail the author."""

    kind: Literal["liked"] = "liked"
    author: Username
    text: str

    @property
    def recipient(self) -> str:
        return self.author


class LikeUndone(_Mail):
    """A job: mail the user that the post does not exist, and the like is undone."""

    kind: Literal["taken_back"] = "taken_back"

    @property
    def recipient(self) -> str:
        return self.username


Notification = Liked | LikeUndone
NOTIFICATION: TypeAdapter[Notification] = TypeAdapter(Annotated[Notification, Field(discriminator="kind")])


class PostDeleted(BaseModel):
    """An event: a post is gone since then."""

    kind: Literal["post_deleted"]
    post_id: Id
    at: AwareDatetime


class AccountDeleted(BaseModel):
    """An event: a user is gone since then; the mails before `place` are forgotten already."""

    kind: Literal["account_deleted"]
    username: Username
    at: AwareDatetime
    place: int = 0


class AccountCleared(BaseModel):
    """An event: nothing is left here of a user who is gone."""

    kind: Literal["account_cleared"] = "account_cleared"
    username: Username
    service: Literal["likes"] = "likes"


Event = PostDeleted | AccountDeleted
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])

# What comes of a claim: it is granted, or the like was removed, or another worker has mailed it or does.
Claim = Literal["granted", "unliked", "mailed"]


@dataclass(frozen=True)
class OutboxEntry:
    """A pending step of a like: check its post or, once the like is undone, notify its user."""

    post_id: UUID
    username: str
    liked_at: datetime | None
