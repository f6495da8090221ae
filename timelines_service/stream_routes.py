"""HTTP for live streams."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Request
from fastapi.concurrency import run_in_threadpool

from common.api import events
from common.api.auth import (
    TOKEN_OPTIONAL,
    OptionalSubject,
    bearer_token,
    require_subject,
    require_user,
    token_required,
    users_only,
)
from common.api.events import EventStream
from common.api.problems import malformed, problems
from common.api.routing import from_state, router
from common.errors import Unauthorized, Unprocessable
from common.fields import EXAMPLE_ID, Username
from common.tokens import Tokens
from timelines_service import errors
from timelines_service.models import Tag
from timelines_service.parameters import UNAVAILABLE, Service
from timelines_service.post_query import Page
from timelines_service.stream_timelines import (
    HomeTimeline,
    PublicTimeline,
    TagTimeline,
    Timeline,
    UserTimeline,
)
from timelines_service.streams import Stream, Streams

routes = router("timelines", *UNAVAILABLE)

OpenStreams = Annotated[Streams, from_state("streams")]
Kind = Annotated[
    Literal["home", "public", "tag", "user"],
    Query(description="Your home timeline, everybody's posts, those with a `tag`, or those of a `username`."),
]
OfTag = Annotated[Tag | None, Query(description="Required for `timeline=tag`.")]
OfUser = Annotated[Username | None, Query(description="Required for `timeline=user`.", examples=["alice"])]
LastEventId = Annotated[
    str | None, Header(description="The last `id` that you got: what has come since is sent first.")
]
EXAMPLE = events.event("1795650000-751-758-755-12", "delete", b'{"id":"%b"}' % EXAMPLE_ID.encode()).decode()
DESCRIPTION = """
Server-sent events: `post`, `edit`, `delete` and, in `home`, `notification`. The data of a `delete` is the
`id` of the post; that of a `post` or an `edit` is the post, as `GET /posts/id/{post_id}` has it without a
token; that of a `notification` is as `GET /notifications` has it. A comment comes every three seconds.
A stream may end at any time; resume it with `Last-Event-ID`. After more than fifteen minutes, an event
`reset` says that events are missing: read the timeline anew.
"""


def _missing(name: str) -> Unprocessable:
    return malformed([{"loc": ("query", name), "type": "missing", "msg": "Field required"}])


@routes.get(
    "/stream",
    status_code=200,  # FastAPI looks for it in the response's own arguments otherwise
    response_class=EventStream,
    responses={
        200: {"description": DESCRIPTION, "content": {EventStream.media_type: {"example": EXAMPLE}}},
        **problems(
            token_required(),
            users_only(),
            errors.user_not_found("alice"),
            _missing("tag"),
            errors.too_many_streams(),
            errors.no_room_for_streams(),
            errors.leaving(),
        ),
    },
    openapi_extra=TOKEN_OPTIONAL,
)
async def stream(
    request: Request,
    subject: OptionalSubject,
    timelines: Service,
    streams: OpenStreams,
    timeline: Kind = "home",
    tag: OfTag = None,
    username: OfUser = None,
    last_event_id: LastEventId = None,
) -> Any:
    """What happens in a timeline, as it happens. Home needs a token, and brings your own posts, too."""
    match timeline:
        case "public":
            shown: Timeline = PublicTimeline()
        case "tag":
            shown = TagTimeline(_required("tag", tag))
        case "user":
            shown = UserTimeline(_required("username", username))
            # Raises NotFound if there is no such user.
            await run_in_threadpool(timelines.by_user, shown.username, Page(1), None)
        case "home":
            reader = await require_user(await require_subject(subject))
            shown = HomeTimeline(reader, await run_in_threadpool(timelines.home_sources, reader))
    opened = Stream(shown, subject, _validity(request))
    await streams.open(opened, last_event_id)
    return EventStream(opened)


def _required(name: str, value: str | None) -> str:
    if value is None:
        raise _missing(name)
    return value


def _validity(request: Request) -> Callable[[], bool]:
    """Whether the request's token is still good; a request without one may go on for ever."""
    tokens: Tokens = request.app.state.tokens
    token = bearer_token(request)

    def is_valid() -> bool:
        try:
            return token is None or bool(tokens.claims(token))
        except Unauthorized:
            return False

    return is_valid
