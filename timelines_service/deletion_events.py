"""What other services are told of deleted posts and reposts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection

from common.jobs.tubes import event_tube
from common.postgres.outbox import Outbox

LIKES_TUBE, POLLS_TUBE = event_tube("likes"), event_tube("polls")


class PostDeleted(BaseModel):
    """An event: a post, or a repost, is gone since then."""

    kind: Literal["post_deleted"] = "post_deleted"
    post_id: UUID
    at: datetime


class PostWithPollDeleted(PostDeleted):
    """An event: a post is gone since then, and this user's poll was in it."""

    poll_id: UUID
    username: str


def tell_of_deleted(outbox: Outbox, connection: Connection, posts: Sequence[Any], at: datetime) -> None:
    """Record events of the deletion of these rows, which have `id`, `username` and `poll_id`."""
    outbox.record(connection, LIKES_TUBE, *(PostDeleted(post_id=post.id, at=at) for post in posts))
    with_poll = [
        PostWithPollDeleted(post_id=post.id, at=at, poll_id=post.poll_id, username=post.username)
        for post in posts
        if post.poll_id
    ]
    outbox.record(connection, POLLS_TUBE, *with_poll)
