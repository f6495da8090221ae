"""Events of a deleted account: what this service records, and what it applies."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from common.fields import Username
from common.jobs.tubes import event_tube

TUBE = event_tube("users")


class AccountDeleted(BaseModel):
    """This account is gone: each service deletes what it has of it, and confirms."""

    kind: Literal["account_deleted"] = "account_deleted"
    username: str
    at: datetime


class AccountCleared(BaseModel):
    """A service has nothing of a deleted account any more."""

    kind: Literal["account_cleared"]
    username: Username
    service: Literal["timelines", "likes", "polls"]
