"""The request and response bodies of the timelines service, and its job."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, StringConstraints
from pydantic_core import PydanticCustomError

from common.fields import PRINTABLE, Id, KnownId, RequestBody, Username

TUBE = "posts"

PostText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=280), PRINTABLE]


class NewPost(RequestBody):
    """The text of a new post."""

    text: PostText = Field(examples=["Good morning!"])


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as exc:
        raise PydanticCustomError("no_such_time", "There is no such time") from exc


class Post(BaseModel):
    """A post, as it is queued, stored and shown."""

    id: Id
    username: Username
    text: PostText = Field(examples=["Good morning!"])
    created_at: Annotated[AwareDatetime, AfterValidator(_in_utc)]


class QueuedPost(BaseModel):
    """A post that is safely queued, and will be stored under this id."""

    id: KnownId
    status: Literal["queued"] = "queued"
