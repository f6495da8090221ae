"""HTTP for timelines: read the request, call the service or the store, name the status."""

from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response

from common.api import headers
from common.api.auth import CurrentUser
from common.api.pagination import Limit, paginate
from common.api.problems import problems
from common.api.routing import router
from common.discovery.client import service_unavailable
from common.errors import store_unavailable
from common.fields import Id, Username
from timelines_service import errors
from timelines_service.models import NewPost, Post, QueuedPost
from timelines_service.service import Timelines
from timelines_service.store import TimelinesStore

routes = router("timelines", store_unavailable("postgres"))


async def get_timelines(request: Request) -> Timelines:
    timelines: Timelines = request.app.state.timelines
    return timelines


async def get_store(request: Request) -> TimelinesStore:
    store: TimelinesStore = request.app.state.store
    return store


Service = Annotated[Timelines, Depends(get_timelines)]
Store = Annotated[TimelinesStore, Depends(get_store)]
Before = Annotated[Id | None, Query(description="The last id of the previous page.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="The same key and text again get the first post, for at least 24 hours.",
    ),
]

# Of a route that calls the users service.
UNAVAILABLE = (store_unavailable("postgres"), service_unavailable("users"))


@routes.post(
    "/posts",
    status_code=201,
    responses={201: {"headers": headers.LOCATION}, **problems(errors.idempotency_key_reused())},
)
def write(
    post: NewPost,
    username: CurrentUser,
    timelines: Service,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Post:
    """Write a post."""
    written = timelines.write(username, post.text, idempotency_key)
    response.headers["Location"] = f"/posts/id/{written.id}"
    return written


@routes.post(
    "/posts/async",
    status_code=202,
    responses={202: {"headers": headers.LOCATION}, **problems(store_unavailable("beanstalkd"))},
)
def enqueue(post: NewPost, username: CurrentUser, timelines: Service, response: Response) -> QueuedPost:
    """Queue a post. A worker writes it soon, under the id in the response."""
    queued = timelines.queue(username, post.text)
    response.headers["Location"] = f"/posts/id/{queued.id}"
    return queued


@routes.get("/posts/id/{post_id}", responses=problems(errors.post_not_found()))
def post(post_id: Id, store: Store) -> Post:
    """A post by its id."""
    return store.post(post_id)


@routes.get(
    "/posts/home/{username}",
    response_model=list[Post],
    responses={
        200: {"headers": headers.LINK},
        **problems(errors.not_yours(), errors.user_not_found("alice"), *UNAVAILABLE),
    },
)
def home(
    username: Username,
    reader: CurrentUser,
    timelines: Service,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: Before = None,
) -> Any:
    """Your home timeline: the posts of the users that you follow, newest first."""
    return paginate(timelines.home(username, reader, limit + 1, before), limit, _id, request, response)


@routes.get(
    "/posts/{username}",
    response_model=list[Post],
    responses={200: {"headers": headers.LINK}, **problems(errors.user_not_found("alice"), *UNAVAILABLE)},
)
def by_user(
    username: Username,
    timelines: Service,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: Before = None,
) -> Any:
    """A user's posts, newest first."""
    return paginate(timelines.by_user(username, limit + 1, before), limit, _id, request, response)


@routes.get(
    "/posts",
    response_model=list[Post],
    responses={200: {"headers": headers.LINK}},
)
def newest(
    store: Store, request: Request, response: Response, limit: Limit = 20, before: Before = None
) -> Any:
    """Everybody's posts, newest first."""
    return paginate(store.newest(limit + 1, before), limit, _id, request, response)


def _id(post: Post) -> object:
    return post.id
