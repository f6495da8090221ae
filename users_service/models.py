"""The request and response bodies of the users service."""

import unicodedata
from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from common.fields import (
    ONE_LINE,
    PRINTABLE,
    VISIBLE,
    Email,
    KnownId,
    KnownUsername,
    NewUsername,
    RequestBody,
    Text,
    Username,
)
from users_service.common_passwords import is_common

MAX_FOLLOWEES = 7500
# Blocks, and mutes, of one user.
MAX_MARKS = 7500
MAX_PASSWORD = 128
# No character is more than four in another canonical form (Unicode Standard Annex 15, section 9).
LONGEST_FORM = 4

# The users of all examples, here, in README and in bin/dev's banner.
ALICE = {
    "username": "alice",
    "password": "correct horse battery staple",
    "email": "alice@example.com",
    "bio": "Reads, cooks, cycles.",
}
BOB = {"username": "bob", "password": "quiet river paper lantern"}


def normalized(password: str) -> str:
    """The one form of what keyboards send in several: NFC, and each space U+0020 (RFC 8265, OpaqueString)."""
    if password.isascii():
        return password
    spaced = (" " if unicodedata.category(character) == "Zs" else character for character in password)
    return unicodedata.normalize("NFC", "".join(spaced))


def _normalized_if_short(value: object) -> object:
    # Marks without end would take seconds to sort; the bounds of its length refuse them as they are.
    if isinstance(value, str) and len(value) <= LONGEST_FORM * MAX_PASSWORD:
        return normalized(value)
    return value


def _as_sent(value: str, check: Callable[[object], str]) -> str:
    """Its bounds are those of the normal form, but a hash may be of the form that is sent."""
    check(_normalized_if_short(value))
    return value


def _reject_common(password: str) -> str:
    if is_common(password):
        raise PydanticCustomError(
            "common_password", "This is one of the most common passwords: choose another"
        )
    return password


def is_name(password: str, username: str | None) -> bool:
    """Whether a password is the user's name, in any case of its letters."""
    return password.lower() == username


def name_as_password() -> PydanticCustomError:
    return PydanticCustomError("name_as_password", "The username is no password: choose another")


Password = Annotated[
    str,
    StringConstraints(min_length=8, max_length=MAX_PASSWORD),
    BeforeValidator(_normalized_if_short),
    PRINTABLE,
    AfterValidator(_reject_common),
]
PasswordAsSent = Annotated[str, StringConstraints(max_length=MAX_PASSWORD), WrapValidator(_as_sent)]

Bio = Annotated[str, Text(500, min_length=0)]
DisplayName = Annotated[str, Text(50), VISIBLE, ONE_LINE]


class NewUser(RequestBody):
    """A new account."""

    username: NewUsername
    password: Password = Field(examples=[ALICE["password"]])
    email: Email | None = Field(None, examples=[ALICE["email"]])
    bio: Bio = Field("", examples=[ALICE["bio"]])

    @field_validator("password")
    @classmethod
    def _is_not_the_name(cls, password: str, info: ValidationInfo) -> str:
        if is_name(password, info.data.get("username")):
            raise name_as_password()
        return password


class Credentials(RequestBody):
    """A username and its password."""

    username: Username
    password: PasswordAsSent = Field(examples=[ALICE["password"]])


class NewPassword(RequestBody):
    """A new password, and the one until now."""

    current_password: PasswordAsSent = Field(examples=[ALICE["password"]])
    new_password: Password = Field(examples=["seven quiet purple lamps"])


class DeletionRequest(RequestBody):
    """The password of the account that is to be deleted."""

    password: PasswordAsSent = Field(examples=[ALICE["password"]])


class Deletion(BaseModel):
    """How far the deletion of an account is."""

    username: KnownUsername
    requested_at: datetime
    remaining: list[str] = Field(
        description="The services that may still have something of it.", examples=[["likes", "timelines"]]
    )
    finished_at: datetime | None


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
    id: KnownId = Field(description="Never given to another account.")
    display_name: str = Field(examples=["Alice"], description="The username, until the user chooses one.")
    followers_count: int
    followees_count: int


class Relationship(BaseModel):
    """What is between the token's user and another."""

    following: bool = False
    followed_by: bool = False
    blocking: bool = False
    muting: bool = False


class NamedRelationship(Relationship):
    """What is between the token's user and the one who is named."""

    username: KnownUsername


class ProfileForOther(Profile):
    """What another user sees, who is signed in."""

    relationship: Relationship


class OwnProfile(Profile):
    """What the user, and the services, see."""

    email: str | None = Field(examples=[ALICE["email"]])
    mail_notifications: bool = Field(description="Whether likes are told by mail.")


class ProfileChanges(RequestBody):
    """Changes of a profile (RFC 7396): what is left out stays, null makes it what it was in the beginning."""

    display_name: DisplayName | None = Field(None, examples=["Alice"])
    bio: Bio | None = Field(None, examples=[ALICE["bio"]])
    email: Email | None = Field(None, examples=[ALICE["email"]])
    mail_notifications: StrictBool | None = None

    def columns(self) -> dict[str, object]:
        """The new values of what changes."""
        initial: dict[str, object] = {"bio": "", "mail_notifications": True}
        values = self.model_dump(exclude_unset=True)
        return {name: initial.get(name) if value is None else value for name, value in values.items()}


class FollowState(BaseModel):
    """Whether one user follows another now, and whether this request changed that."""

    follower: KnownUsername
    followee: str = Field(examples=[BOB["username"]])
    following: bool
    changed: bool


class BlockState(BaseModel):
    """Whether one user blocks another now, and whether this request changed that."""

    blocker: KnownUsername
    blocked: str = Field(examples=[BOB["username"]])
    blocking: bool
    changed: bool


class MuteState(BaseModel):
    """Whether one user mutes another now, and whether this request changed that."""

    muter: KnownUsername
    muted: str = Field(examples=[BOB["username"]])
    muting: bool
    changed: bool


class HomeSources(BaseModel):
    """Whose posts are in a user's home timeline, and who is hidden from it, also where others repost them."""

    followees: list[str]
    hidden: list[str] = Field(description="Muted, blocked, and blocked by.")
    blocked: list[str] = Field(description="Blocked, and blocked by.")
    version: str = Field(description="Another one after each change.")
