"""The response bodies of the likes service, and its jobs."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter

from common.fields import Id, KnownId, KnownUsername, Username

VALIDATE_TUBE = "likes.validate"
NOTIFY_TUBE = "likes.notify"


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
    """A job: find out whether the post exists."""

    post_id: Id
    username: Username


class Liked(BaseModel):
    """A job: mail the author."""

    kind: Literal["liked"] = "liked"
    post_id: Id
    username: Username
    author: Username
    text: str


class LikeUndone(BaseModel):
    """A job: mail the user that the post does not exist, and the like is undone."""

    kind: Literal["taken_back"] = "taken_back"
    post_id: Id
    username: Username


Notification = Liked | LikeUndone
NOTIFICATION: TypeAdapter[Notification] = TypeAdapter(Annotated[Notification, Field(discriminator="kind")])


@dataclass(frozen=True)
class OutboxEntry:
    """A pending step of a like: check its post or, once the like is undone, notify its user."""

    post_id: UUID
    username: str
    liked_at: datetime | None
