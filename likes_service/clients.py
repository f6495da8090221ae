"""The likes workers' calls to other services."""

from typing import TypeVar
from uuid import UUID

import httpx
from pydantic import BaseModel, ValidationError

from common.discovery.client import ServiceClient
from common.errors import Unavailable
from likes_service.models import Post

Model = TypeVar("Model", bound=BaseModel)


class Recipient(BaseModel):
    """What matters of a user who is to get a mail."""

    email: str | None = None
    # A users service of the last version knows no such setting.
    mail_notifications: bool = True


class Sources(BaseModel):
    """What makes a user's home timeline: of it, those who are hidden, by a mute or by a block of either."""

    hidden: list[str] = []


class TimelinesClient:
    def __init__(self, timelines: ServiceClient) -> None:
        self._timelines = timelines

    def post(self, post_id: UUID) -> Post | None:
        """The post; None when there is none. Raises Unavailable."""
        return _read(Post, self._timelines.get(f"/posts/id/{post_id}"))


class UsersClient:
    def __init__(self, users: ServiceClient) -> None:
        self._users = users

    def recipient(self, username: str) -> Recipient:
        """The user, without an address where there is no such user. Raises Unavailable."""
        return _read(Recipient, self._users.get(f"/users/{username}")) or Recipient()

    def hides(self, username: str, other: str) -> bool:
        """Whether the other is hidden from the user. Raises Unavailable."""
        sources = _read(Sources, self._users.get(f"/users/{username}/home-sources"))
        return sources is not None and other in sources.hidden


def _read(model: type[Model], response: httpx.Response) -> Model | None:
    if response.status_code == 404:
        return None
    try:
        if response.status_code == 200:
            return model.model_validate_json(response.content)
    except ValidationError:
        pass
    raise Unavailable("not_understood", f"{response.status_code} from {response.url.path} is no answer.")
