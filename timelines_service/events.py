"""Events of other services, applied once however often they come. `docs/architecture.md` lists all."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter
from sqlalchemy import Connection, text

from common.fields import Id, Username
from common.jobs.tubes import event_tube
from common.postgres.database import Database
from timelines_service.account_deletions import AccountDeletions
from timelines_service.notifications import Cause, change

TUBE = event_tube("timelines")
MAX_RECIPIENTS = 100

# The lock keeps the post there until its author is told: so the sweep of its deletion finds the notification.
# Newest first, as all transactions lock posts.
POSTS = text("""
    SELECT id, username, poll_id FROM posts
    WHERE id = ANY (CAST(:ids AS uuid[])) OR poll_id = ANY (CAST(:poll_ids AS uuid[]))
    ORDER BY id DESC FOR KEY SHARE
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

    def __init__(self, database: Database, account_deletions: AccountDeletions) -> None:
        self._database = database
        self._account_deletions = account_deletions

    def apply(self, *events: Event) -> None:
        """Apply events, in one transaction; one that was applied before changes nothing."""
        with self._database.transaction() as connection:
            for event in events:
                if isinstance(event, AccountDeleted):
                    self._account_deletions.begin(connection, event.username, event.at)
            posts = _posts(connection, events)
            changes = [one for event in events for one in _changes(event, posts)]
            told = [cause for is_told, cause in changes if is_told]
            change(connection, told, [cause for is_told, cause in changes if not is_told])


class _Posts(NamedTuple):
    """The posts that events are about: their authors, and the posts of polls."""

    authors: Mapping[UUID, str]
    of_polls: Mapping[UUID, UUID]


def _posts(connection: Connection, events: Sequence[Event]) -> _Posts:
    ids = {event.post_id for event in events if isinstance(event, LikeChanged)}
    poll_ids = {event.poll_id for event in events if isinstance(event, PollEnded)}
    if not ids | poll_ids:
        return _Posts({}, {})
    rows = connection.execute(POSTS, {"ids": list(ids), "poll_ids": list(poll_ids)}).all()
    return _Posts(
        {row.id: row.username for row in rows}, {row.poll_id: row.id for row in rows if row.poll_id}
    )


def _changes(event: Event, posts: _Posts) -> Iterator[tuple[bool, Cause]]:
    """What an event changes: causes that are so since then, or are not any more."""
    match event:
        case FollowChanged():
            yield event.kind == "followed", Cause("follow", event.followee, event.follower, event.at)
        case LikeChanged():
            # Likes of posts that are not there yet are undone unseen: without a post, it is deleted.
            if author := posts.authors.get(event.post_id):
                cause = Cause("like", author, event.username, event.at, post_id=event.post_id)
                yield event.kind == "liked", cause
        case PollEnded():
            post_id = posts.of_polls.get(event.poll_id)
            for name in event.recipients:
                cause = Cause("poll_ended", name, event.author, event.at, post_id, subject_id=event.poll_id)
                yield True, cause
