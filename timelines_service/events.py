"""Events of other services, applied once however often they come. `docs/architecture.md` lists all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter
from sqlalchemy import Connection, text

from common.fields import Id, Username
from common.jobs.tubes import event_tube
from common.postgres.database import Database
from timelines_service.account_deletions import AccountDeletions
from timelines_service.notifications import Cause, take_turn, tell, withdraw

TUBE = event_tube("timelines")
MAX_RECIPIENTS = 100

# The lock keeps the post there until its author is told: so the sweep of its deletion finds the notification.
# Newest first, as all transactions lock posts.
AUTHORS = text("SELECT id, username FROM posts WHERE id = ANY (:ids) ORDER BY id DESC FOR KEY SHARE")
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


class AccountDeleted(BaseModel):
    """An account is gone since then."""

    kind: Literal["account_deleted"]
    username: Username
    at: AwareDatetime


class PollEnded(BaseModel):
    """An author's poll ended then; these are some of those who are to be told."""

    kind: Literal["poll_ended"]
    poll_id: Id
    author: Username
    recipients: Annotated[list[Username], Field(max_length=MAX_RECIPIENTS)]
    at: AwareDatetime


Event = FollowChanged | LikeChanged | PollEnded | AccountDeleted
EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


class Events:
    """Applies events. Threads may share it."""

    outages = Database.outages

    def __init__(self, database: Database, account_deletions: AccountDeletions) -> None:
        self._database = database
        self._account_deletions = account_deletions

    def apply(self, *events: Event) -> None:
        """Apply events, in one transaction; one that was applied before changes nothing."""
        with self._database.transaction() as connection:
            for event in events:
                if isinstance(event, AccountDeleted):
                    self._account_deletions.begin(connection, event.username, event.at)
            authors = _authors(connection, events)
            changes = [change for event in events for change in _changes(connection, event, authors)]
            # Both at once: two transactions take turns in one order.
            take_turn(connection, {cause.recipient for _, cause in changes})
            tell(connection, *(cause for is_told, cause in changes if is_told))
            withdraw(connection, *(cause for is_told, cause in changes if not is_told))


def _authors(connection: Connection, events: Sequence[Event]) -> dict[UUID, str]:
    """The authors of the posts that are liked, or not any more."""
    liked = {event.post_id for event in events if isinstance(event, LikeChanged)}
    if not liked:
        return {}
    return {row.id: row.username for row in connection.execute(AUTHORS, {"ids": list(liked)})}


def _changes(
    connection: Connection, event: Event, authors: Mapping[UUID, str]
) -> Iterator[tuple[bool, Cause]]:
    """What an event changes: causes that are so since then, or are not any more."""
    match event:
        case FollowChanged():
            yield event.kind == "followed", Cause("follow", event.followee, event.follower, event.at)
        case LikeChanged():
            # Likes of posts that are not there yet are undone unseen: without a post, it is deleted.
            if author := authors.get(event.post_id):
                cause = Cause("like", author, event.username, event.at, post_id=event.post_id)
                yield event.kind == "liked", cause
        case PollEnded():
            post_id = connection.execute(POST_OF_POLL, {"poll_id": event.poll_id}).scalar_one_or_none()
            for name in event.recipients:
                yield (
                    True,
                    Cause("poll_ended", name, event.author, event.at, post_id, subject_id=event.poll_id),
                )
