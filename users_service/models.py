"""What people say to the users service, and what it says to them."""

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from common.fields import PRINTABLE, RequestBody, Username
from users_service.common_passwords import is_common

MAX_FOLLOWEES = 7500

# What browsers take for an address: WHATWG HTML, "valid e-mail address".
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
EMAIL = rf"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*$"

Email = Annotated[str, StringConstraints(max_length=254, pattern=EMAIL)]


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
    """An account to be."""

    username: Username = Field(examples=["alice"])
    password: Password = Field(examples=["correct horse battery"])
    email: Email | None = Field(None, examples=["alice@example.com"])
    bio: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500), PRINTABLE] = Field(
        "", examples=["Reads, cooks, cycles."]
    )

    @field_validator("password")
    @classmethod
    def _is_not_the_name(cls, password: str, info: ValidationInfo) -> str:
        if password.lower() == info.data.get("username"):
            raise PydanticCustomError("name_as_password", "A name is no password: choose another")
        return password


class Credentials(RequestBody):
    """A name and its password."""

    username: Username = Field(examples=["alice"])
    password: Annotated[str, StringConstraints(max_length=128)] = Field(
        examples=["correct horse battery staple"]
    )


class AccessToken(BaseModel):
    """An access token (RFC 6749, §5.1)."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105  a type, not a token
    expires_in: int = Field(description="Seconds.")


class Profile(BaseModel):
    """What everybody may know of a user."""

    username: str
    bio: str
    created_at: datetime


class OwnProfile(Profile):
    """What a user, and the services, know besides."""

    email: str | None


class FollowState(BaseModel):
    """How it is between two users now, and whether that is new."""

    follower: str
    followee: str
    following: bool
    changed: bool
