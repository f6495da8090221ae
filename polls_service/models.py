"""The request and response bodies of the polls service."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints
from pydantic_core import PydanticCustomError

from common.fields import PRINTABLE, KnownId, KnownUsername, RequestBody

Question = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=280), PRINTABLE]
Option = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), PRINTABLE]


def _all_different(options: list[str]) -> list[str]:
    if len(set(options)) < len(options):
        raise PydanticCustomError("repeated_option", "The options must be different")
    return options


class NewPoll(RequestBody):
    """A question and its options; neither ever changes."""

    question: Question = Field(examples=["Tea or coffee?"])
    options: Annotated[list[Option], AfterValidator(_all_different)] = Field(
        min_length=2, max_length=10, examples=[["Tea", "Coffee"]]
    )


class NewVote(RequestBody):
    """The option that the user chooses."""

    option: int = Field(ge=0, lt=2**31, strict=True, description="The option's index, from 0.", examples=[0])


class Poll(BaseModel):
    """A poll as everybody sees it."""

    id: KnownId
    question: str
    options: list[str]
    created_by: KnownUsername
    created_at: datetime


class PollWithVote(Poll):
    """A poll as a user who is signed in sees it."""

    voted: int | None = Field(description="The index of the option that you voted for.")


class Vote(BaseModel):
    """A vote that is counted."""

    poll_id: KnownId
    option: int


class OptionResult(BaseModel):
    """How many users voted for this option."""

    option: int
    text: str
    votes: int


class Results(BaseModel):
    """The votes of a poll, by option and in all."""

    poll_id: KnownId
    question: str
    total_votes: int
    results: list[OptionResult]
