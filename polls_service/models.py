"""The request and response bodies of the polls service, and its events."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    TypeAdapter,
    ValidationInfo,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from common.fields import VISIBLE, Id, KnownId, KnownUsername, RequestBody, Text, Username
from common.jobs.tubes import event_tube

MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 300, 2_629_746

EVENTS_TUBE, USERS_TUBE, TIMELINES_TUBE = event_tube("polls"), event_tube("users"), event_tube("timelines")

Question = Annotated[str, Text(280), VISIBLE]
Option = Annotated[str, Text(100), VISIBLE]
Index = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


def _different(options: list[Any]) -> list[Any]:
    if len(set(options)) < len(options):
        raise PydanticCustomError("repeated_option", "The options must be different")
    return options


ALL_DIFFERENT = AfterValidator(_different)


class NewPoll(RequestBody):
    """A question and its options; neither ever changes."""

    question: Question = Field(examples=["Tea or coffee?"])
    options: Annotated[list[Option], ALL_DIFFERENT] = Field(
        min_length=2, max_length=10, examples=[["Tea", "Coffee"]]
    )
    expires_in: int | None = Field(
        default=None,
        ge=MIN_DURATION_SECONDS,
        le=MAX_DURATION_SECONDS,
        strict=True,
        description="Seconds until it ends; without it, it never does.",
    )
    multiple: bool = Field(
        default=False, strict=True, description="Whether one vote may be for several options."
    )
    hide_totals: bool = Field(
        default=False,
        strict=True,
        description="Whether its totals are hidden until it ends; requires `expires_in`.",
    )

    @field_validator("hide_totals")
    @classmethod
    def _until_it_ends(cls, hide_totals: bool, info: ValidationInfo) -> bool:
        if hide_totals and info.data.get("expires_in", MIN_DURATION_SECONDS) is None:
            raise PydanticCustomError(
                "never_ends", "Totals can be hidden only until the poll ends: set expires_in"
            )
        return hide_totals


class NewVote(RequestBody):
    """The option that the user chooses."""

    option: Index = Field(description="The option's index, from 0.", examples=[0])

    @property
    def options(self) -> list[int]:
        return [self.option]


class NewVoteForSeveral(RequestBody):
    """The options that the user chooses; several only in a poll that allows it."""

    options: Annotated[list[Index], ALL_DIFFERENT] = Field(
        min_length=1, max_length=10, description="The options' indices, from 0.", examples=[[0, 1]]
    )


def _by_its_field(body: Any, _: object) -> NewVote | NewVoteForSeveral:
    """By a union, pydantic would name both models in the errors of each."""
    several = isinstance(body, dict) and "options" in body
    return (NewVoteForSeveral if several else NewVote).model_validate(body, from_attributes=True)


Choice = Annotated[NewVote | NewVoteForSeveral, WrapValidator(_by_its_field)]


class Poll(BaseModel):
    """A poll as everybody sees it."""

    id: KnownId
    question: str
    options: list[str]
    created_by: KnownUsername
    created_at: datetime
    expires_at: datetime | None = Field(description="When it ends; null if it never does.")
    closed: bool = Field(description="Whether it has ended.")
    multiple: bool = Field(description="Whether one vote may be for several options.")
    voters_count: int | None = Field(description="How many users have voted; null while that is hidden.")


class PollWithVote(Poll):
    """A poll as a user who is signed in sees it."""

    voted: int | None = Field(
        description="The index of the option that you voted for; of several, the first."
    )
    own_votes: list[int] = Field(description="The indices of all options that you voted for.")


class Vote(BaseModel):
    """A vote that is counted."""

    poll_id: KnownId
    option: int


class VoteForSeveral(Vote):
    """A vote that is counted, for all of these options."""

    options: list[int]


class OptionResult(BaseModel):
    """How many users voted for this option."""

    option: int
    text: str
    votes: int | None = Field(description="null while the totals are hidden.")


class Results(BaseModel):
    """The votes of a poll, by option and in all."""

    poll_id: KnownId
    question: str
    total_votes: int | None = Field(description="null while the totals are hidden.")
    results: list[OptionResult]


class PostDeleted(BaseModel):
    """An event: a post is gone since then, and this user's poll was in it."""

    kind: Literal["post_deleted"]
    post_id: Id
    poll_id: Id
    username: Username
    at: AwareDatetime


class AccountDeleted(BaseModel):
    """An event: a user is gone since then; `is_settled` once nothing of theirs can be under way any more."""

    kind: Literal["account_deleted"]
    username: Username
    at: AwareDatetime
    is_settled: bool = False


class PollOver(BaseModel):
    """A job: tell of the end of a poll."""

    kind: Literal["poll_over"] = "poll_over"
    poll_id: Id
    at: AwareDatetime


Event = PostDeleted | AccountDeleted | PollOver
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class AccountCleared(BaseModel):
    """An event: nothing is left here of a user who is gone."""

    kind: Literal["account_cleared"] = "account_cleared"
    username: Username
    service: Literal["polls"] = "polls"


class PollEnded(BaseModel):
    """An event: a poll has ended, and these of its author and its voters are to be told."""

    kind: Literal["poll_ended"] = "poll_ended"
    poll_id: KnownId
    author: KnownUsername
    recipients: list[KnownUsername]
    at: AwareDatetime
