"""What the likes service's workers ask other services."""

from typing import TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from common.discovery.client import ServiceClient
from common.errors import ProblemDetails, Unavailable
from likes_service.models import Post

Answer = TypeVar("Answer", bound=BaseModel)


class Profile(BaseModel):
    """What matters here of a user."""

    email: str | None = None


class TimelinesClient:
    def __init__(self, timelines: ServiceClient) -> None:
        self._timelines = timelines

    def post(self, post_id: UUID) -> Post | None:
        """The post; None when there is none. Unavailable when that cannot be told now."""
        return _read(Post, self._timelines.get(f"/posts/id/{post_id}"))


class UsersClient:
    def __init__(self, users: ServiceClient) -> None:
        self._users = users

    def address(self, username: str) -> str | None:
        """Where mails for this user go, if anywhere. Unavailable when that cannot be told now."""
        profile = _read(Profile, self._users.get(f"/users/{username}"))
        return profile.email if profile else None


def _read(model: type[Answer], answer: httpx.Response) -> Answer | None:
    if answer.status_code == 404 and not _knows_no_such_path(answer):
        return None
    try:
        if answer.status_code == 200:
            return model.model_validate_json(answer.content)
    except ValidationError:
        pass
    raise Unavailable("not_understood", f"{answer.status_code} from {answer.url.path} is no answer.")


def _knows_no_such_path(answer: httpx.Response) -> bool:
    """Whether it is not the thing asked for that is missing: this is some other service at an old address."""
    try:
        return ProblemDetails.model_validate_json(answer.content).code == "not_found"
    except ValidationError:
        return False
