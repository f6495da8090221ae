"""Events of other services, applied once however often they come. `docs/architecture.md` lists all."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter
from sqlalchemy import Connection, text

from common.fields import Id, Username
from common.jobs.tubes import event_tube
from common.postgres.database import Database
from timelines_service.notifications import Cause, tell, withdraw

TUBE = event_tube("timelines")
MAX_RECIPIENTS = 100

# The lock keeps the post there until its author is told: so the sweep of its deletion finds the notification.
AUTHOR = text("SELECT username FROM posts WHERE id = :id FOR KEY SHARE")
POST_OF_POLL = text("""
    SELECT id FROM posts WHERE poll_id = :poll_id AND repost_of IS NULL ORDER BY id LIMIT 1 FOR KEY SHARE
""")


class FollowChanged(BaseModel):
    """A user follows another since then, or does not any more."""

    kind: Literal["followed", "unfollowed"]
    follower: Username
    followee: Username
    at: AwareDatetime


class LikeChanged(BaseModel):
    """A user likes a post since then, or does not any more."""

    kind: Literal["liked", "unliked"]
    username: Username
    post_id: Id
    at: AwareDatetime


class PollEnded(BaseModel):
    """An author's poll ended then; these are some of those who are to be told."""

    kind: Literal["poll_ended"]
    poll_id: Id
    author: Username
    recipients: Annotated[list[Username], Field(max_length=MAX_RECIPIENTS)]
    at: AwareDatetime


Event = FollowChanged | LikeChanged | PollEnded
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


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
                case LikeChanged():
                    _like_changed(connection, event)
                case PollEnded():
                    _poll_ended(connection, event)


def _follow_changed(connection: Connection, event: FollowChanged) -> None:
    cause = Cause("follow", event.followee, event.follower, event.at)
    (tell if event.kind == "followed" else withdraw)(connection, cause)


def _like_changed(connection: Connection, event: LikeChanged) -> None:
    # Likes of posts that are not there yet are undone unseen: without a post, it is deleted.
    author = connection.execute(AUTHOR, {"id": event.post_id}).scalar_one_or_none()
    if author:
        cause = Cause("like", author, event.username, event.at, post_id=event.post_id)
        (tell if event.kind == "liked" else withdraw)(connection, cause)


def _poll_ended(connection: Connection, event: PollEnded) -> None:
    post_id = connection.execute(POST_OF_POLL, {"poll_id": event.poll_id}).scalar_one_or_none()
    causes = [
        Cause("poll_ended", name, event.author, event.at, post_id, subject_id=event.poll_id)
        for name in event.recipients
    ]
    tell(connection, *causes)
