"""HTTP for the inbox: what a user is told of what others did."""

from typing import Annotated, Any

from fastapi import Request, Response

from common.api import headers
from common.api.auth import CurrentUser
from common.api.batch import UNIQUE, batch
from common.api.problems import problems
from common.api.routing import router
from common.discovery.client import service_unavailable
from common.errors import store_unavailable
from common.fields import Id
from timelines_service import errors
from timelines_service.models import MarkRead, Notification, NotificationKind, Unread
from timelines_service.parameters import PageOf, Service, Store, linked

routes = router("timelines", store_unavailable("postgres"))

Kinds = Annotated[
    list[NotificationKind],
    batch("kind", "reply", description="These kinds only: repeat it for several.", min_length=None),
    UNIQUE,
]


@routes.get(
    "/notifications",
    response_model=list[Notification],
    responses={200: {"headers": headers.LINKS}, **problems(service_unavailable("users"))},
)
def notifications(
    username: CurrentUser,
    timelines: Service,
    page: PageOf,
    request: Request,
    response: Response,
    kinds: Kinds = [],  # noqa: B006  it is only read
) -> Any:
    """What others did that concerns you, newest first; nothing of users whom you muted or blocked."""
    return linked(timelines.notifications(username, page, kinds), page, request, response)


@routes.get("/notifications/unread", responses=problems(service_unavailable("users")))
def unread(username: CurrentUser, timelines: Service) -> Unread:
    """How many notifications you have not read; a thousand stands for more, too."""
    return Unread(count=timelines.unread_notifications(username))


@routes.post("/notifications/read", status_code=204)
def mark_read(read: MarkRead, username: CurrentUser, store: Store) -> None:
    """Mark as read what is not newer than an id. That notification may be gone: its id is a position."""
    store.inbox.mark_read(username, read.up_to)


@routes.delete(
    "/notifications/{notification_id}",
    status_code=204,
    responses=problems(errors.notification_not_found()),
)
def dismiss(notification_id: Id, username: CurrentUser, store: Store) -> None:
    """Dismiss one of your notifications, for good."""
    store.inbox.dismiss(username, notification_id)
