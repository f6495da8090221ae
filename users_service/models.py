"""The request and response bodies of the users service."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from common.fields import PRINTABLE, Email, KnownUsername, RequestBody, Username
from users_service.common_passwords import is_common

MAX_FOLLOWEES = 7500

# The users of all examples, here, in README and in bin/dev's banner.
ALICE = {
    "username": "alice",
    "password": "correct horse battery staple",
    "email": "alice@example.com",
    "bio": "Reads, cooks, cycles.",
}
BOB = {"username": "bob", "password": "quiet river paper lantern"}


def _reject_common(password: str) -> str:
    if is_common(password):
        raise PydanticCustomError(
            "common_password", "This is one of the most common passwords: choose another"
        )
    return password


Password = Annotated[
    str, StringConstraints(min_length=8, max_length=128), PRINTABLE, AfterValidator(_reject_common)
]


class NewUser(RequestBody):
    """A new account."""

    username: Username
    password: Password = Field(examples=[ALICE["password"]])
    email: Email | None = Field(None, examples=[ALICE["email"]])
    bio: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), PRINTABLE] = Field(
        "", examples=[ALICE["bio"]]
    )

    @field_validator("password")
    @classmethod
    def _is_not_the_name(cls, password: str, info: ValidationInfo) -> str:
        if password.lower() == info.data.get("username"):
            raise PydanticCustomError("name_as_password", "The username is no password: choose another")
        return password


class Credentials(RequestBody):
    """A username and its password."""

    username: Username
    password: Annotated[str, StringConstraints(max_length=128)] = Field(examples=[ALICE["password"]])


class AccessToken(BaseModel):
    """An access token (RFC 6749, §5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105  a type, not a token
    expires_in: int = Field(description="Seconds.")


class Profile(BaseModel):
    """What everybody sees of a user."""

    username: KnownUsername
    bio: str = Field(examples=[ALICE["bio"]])
    created_at: datetime


class OwnProfile(Profile):
    """What the user, and the services, see."""

    email: str | None = Field(examples=[ALICE["email"]])


class FollowState(BaseModel):
    """Whether one user follows another now, and whether this request changed that."""

    follower: KnownUsername
    followee: str = Field(examples=[BOB["username"]])
    following: bool
    changed: bool
