"""Events of other services, applied once however often they come. `docs/architecture.md` lists all."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter
from sqlalchemy import Connection

from common.fields import Username
from common.jobs.tubes import event_tube
from common.postgres.database import Database
from timelines_service.notifications import Cause, tell, withdraw

TUBE = event_tube("timelines")


class FollowChanged(BaseModel):
    """A user follows another since then, or does not any more."""

    kind: Literal["followed", "unfollowed"]
    follower: Username
    followee: Username
    at: AwareDatetime


Event = FollowChanged
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field()])


class Events:
    """Applies events. Threads may share it."""

    outages = Database.outages

    def __init__(self, database: Database) -> None:
        self._database = database

    def apply(self, event: Event) -> None:
        """Apply an event; one that was applied before changes nothing."""
        with self._database.transaction() as connection:
            match event:
                case FollowChanged():
                    _follow_changed(connection, event)


def _follow_changed(connection: Connection, event: FollowChanged) -> None:
    cause = Cause("follow", event.followee, event.follower, event.at)
    (tell if event.kind == "followed" else withdraw)(connection, cause)
