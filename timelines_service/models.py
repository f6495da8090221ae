"""What people say to the timelines service, and what it says to them."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, StringConstraints

from common.fields import PRINTABLE, Id, Request, Username

TUBE = "posts"

PostText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=280), PRINTABLE]


class NewPost(Request):
    """The text of a post to be."""

    text: PostText = Field(examples=["Good morning!"])


class Post(BaseModel):
    """A post, as it is queued, stored and shown."""

    id: Id
    username: Username
    text: PostText
    created_at: AwareDatetime


class Queued(BaseModel):
    """A promise: the post will be there, under this id."""

    id: UUID
    status: Literal["queued"] = "queued"
