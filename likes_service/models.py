"""What the likes service says to people, and what its jobs say to its workers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter

from common.fields import Id, Username

VALIDATE_TUBE = "likes.validate"
NOTIFY_TUBE = "likes.notify"


class LikeState(BaseModel):
    """How it is between a user and a post now, and whether that is new."""

    post_id: UUID
    username: str
    liked: bool
    changed: bool
    count: int


class PostLikes(BaseModel):
    """How many like a post."""

    post_id: UUID
    count: int


class LikedPost(BaseModel):
    """A post that a user likes, and since when."""

    post_id: UUID
    liked_at: datetime


class Post(BaseModel):
    """What the timelines service says of a post."""

    id: UUID
    username: Username
    text: str


class ValidateLike(BaseModel):
    """A job: see whether the post exists."""

    post_id: Id
    username: Username


class Liked(BaseModel):
    """A job: tell the author."""

    kind: Literal["liked"] = "liked"
    post_id: Id
    username: Username
    author: Username
    text: str


class LikeUndone(BaseModel):
    """A job: tell the liker that there is no such post."""

    kind: Literal["taken_back"] = "taken_back"
    post_id: Id
    username: Username


Notification = Liked | LikeUndone
NOTIFICATION: TypeAdapter[Notification] = TypeAdapter(Annotated[Notification, Field(discriminator="kind")])


@dataclass(frozen=True)
class OutboxEntry:
    """What the validation owes one like: a look at its post or, once it was taken back, word to its liker."""

    post_id: UUID
    username: str
    liked_at: datetime | None
