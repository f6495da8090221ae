"""The request and response bodies of the timelines service, and its job."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from common.fields import VISIBLE, Id, KnownId, KnownUsername, RequestBody, Text, Username, is_none
from timelines_service.tags import is_tag, normalized

TUBE = "posts"

PostText = Annotated[str, Text(280)]
ContentWarning = Annotated[str, Text(100)]
Visibility = Annotated[
    Literal["public", "unlisted"],
    Field(description="`unlisted`: not in the public timeline, in tags and in search."),
]

# Swagger would else fill in a post to reply to that does not exist.
EXAMPLE: JsonDict = {"text": "Good morning!"}


class NewPost(RequestBody):
    """The text of a new post, and what it is to be."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    text: Annotated[PostText, VISIBLE] = Field(examples=[EXAMPLE["text"]])
    in_reply_to: Id | None = Field(default=None, description="The post that this one answers.")
    warning: Annotated[ContentWarning, VISIBLE] | None = Field(
        default=None, description="Shown in place of the text, until the reader opens it."
    )
    visibility: Visibility = "public"
    poll_id: Id | None = Field(
        default=None, description="Your poll, to be shown in this post and in no other."
    )


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as exc:
        raise PydanticCustomError("no_such_time", "There is no such time") from exc


class AcceptedPost(BaseModel):
    """A post, as it is queued and stored. A job of an older version lacks the fields that have a default."""

    id: Id
    username: Username
    text: PostText = Field(examples=[EXAMPLE["text"]])
    created_at: Annotated[AwareDatetime, AfterValidator(_in_utc)]
    in_reply_to: Id | None = None
    warning: ContentWarning | None = None
    visibility: Visibility = "public"
    poll_id: Id | None = None


class Post(AcceptedPost):
    """A post, as it is shown."""

    replies_count: int = 0
    reposts_count: int = 0
    edited_at: datetime | None = None
    tags: list[str] = []
    mentions: list[KnownUsername] = []
    reposted: bool | None = Field(
        default=None, description="Whether you have reposted it; with a token.", exclude_if=is_none
    )
    bookmarked: bool | None = Field(
        default=None, description="Whether you have bookmarked it; with a token.", exclude_if=is_none
    )
    pinned: bool | None = Field(
        default=None, description="Whether you have pinned it; with a token.", exclude_if=is_none
    )
    repost_of: "Post | None" = Field(
        default=None,
        description="Of a repost: the whole original, whose text it repeats.",
        exclude_if=is_none,
    )


def _tag(word: str) -> str:
    if not is_tag(word):
        raise PydanticCustomError("malformed_tag", "A tag is letters, digits and _, and not digits only")
    return normalized(word)


# Tags are compared in one form, whatever form a client asks for.
Tag = Annotated[str, AfterValidator(_tag), Field(examples=["morning"])]


class Edit(RequestBody):
    """Another text for a post."""

    text: Annotated[PostText, VISIBLE] = Field(examples=["Good evening!"])


class PostVersion(BaseModel):
    """An earlier text of a post, and when it was written."""

    version: int
    text: str
    created_at: datetime


class Context(BaseModel):
    """The posts that a post answers, from the first one on, and its answers as a reader sees a thread."""

    ancestors: list[Post]
    descendants: list[Post]


class Reposter(BaseModel):
    """Who has reposted a post, and when."""

    username: KnownUsername
    reposted_at: datetime
    repost_id: KnownId


NotificationKind = Literal["like", "mention", "reply", "repost", "follow", "poll_ended"]


class Notification(BaseModel):
    """What somebody did that concerns the user."""

    id: KnownId
    kind: NotificationKind
    actor: KnownUsername = Field(description="Who did it; of a poll that has ended, its author.")
    post_id: KnownId | None = Field(
        default=None,
        description="The post that it is about: yours or, of a reply or a mention, the other's.",
        exclude_if=is_none,
    )
    created_at: datetime
    read: bool


class Unread(BaseModel):
    """How many notifications a user has not read, 1,000 at most."""

    count: int


class MarkRead(RequestBody):
    """Up to which notification the user has read."""

    up_to: Id


class TagInUse(BaseModel):
    """A hashtag, and how many posts of the last seven days have it."""

    tag: str
    posts_count: int


class DeletedPost(BaseModel):
    """What a stream says of a post, or a repost, that is gone."""

    id: KnownId


class PostCounts(BaseModel):
    """How many posts a user has written, reposts not among them, and when the last one."""

    username: KnownUsername
    posts_count: int
    last_posted_at: datetime | None


class QueuedPost(BaseModel):
    """A post that is safely queued, and will be stored under this id."""

    id: KnownId
    status: Literal["queued"] = "queued"
