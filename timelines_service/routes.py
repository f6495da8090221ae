"""HTTP for posts and timelines: read the request, call the service or the store, name the status."""

from operator import attrgetter
from typing import Annotated, Any

from fastapi import Header, Path, Query, Request, Response

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser
from common.api.batch import MAX_BATCH, UNIQUE, batch
from common.api.pagination import SEEN, Limit, paginate
from common.api.problems import problems
from common.api.routing import MAY_BE_STALE, router
from common.discovery.client import service_unavailable
from common.errors import store_unavailable
from common.fields import Id, Username, WholeNumber
from timelines_service import errors
from timelines_service.models import NewPost, Post, PostCounts, QueuedPost, Tag, TagInUse
from timelines_service.parameters import UNAVAILABLE, PageOfPosts, Reader, Service, Store, linked

routes = router("timelines", store_unavailable("postgres"))

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern="^[!-~]+$",
        description="The same key and post again get the first post, for at least 24 hours.",
    ),
]
Ids = Annotated[
    list[Id],
    batch(
        "id",
        description=f"These posts only, in this order: repeat it, at most {MAX_BATCH} times.",
        min_length=None,
    ),
    UNIQUE,
]
Usernames = Annotated[list[Username], batch("username", "alice"), UNIQUE]
Replies = Annotated[bool, Query(description="`false` leaves out replies.")]
Reposts = Annotated[bool, Query(description="`false` leaves out reposts.")]
IncludeSelf = Annotated[bool, Query(description="`true` adds your own posts and reposts.")]
OfTag = Annotated[Tag | None, Query(description="The user's own posts with this hashtag only.")]
TagPath = Annotated[Tag, Path(description="A hashtag, without `#`.", examples=["morning"])]
SearchText = Annotated[str, Query(min_length=1, max_length=200, examples=["good morning"])]
SeenPosts = Annotated[WholeNumber | None, Query(ge=1, lt=2**63, description=SEEN)]
BeforeTag = Annotated[Tag | None, Query(description="The last tag of the previous page.")]
Pinned = Annotated[
    bool, Query(description="`true`: the pinned posts only, the newest pin first, on one page.")
]


# What may be wrong with a new post.
REFUSALS = (
    errors.blocked(),
    errors.post_not_found(),
    errors.poll_not_found(),
    errors.not_your_poll(),
    errors.poll_in_use(),
    *UNAVAILABLE,
    service_unavailable("polls"),
)


@routes.post(
    "/posts",
    status_code=201,
    responses={
        201: {"headers": headers.LOCATION},
        **problems(*REFUSALS, errors.idempotency_key_reused()),
    },
)
def write(
    post: NewPost,
    username: CurrentUser,
    timelines: Service,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Post:
    """Write a post, or a reply to one."""
    written = timelines.write(username, post, idempotency_key)
    response.headers["Location"] = f"/posts/id/{written.id}"
    return written


@routes.post(
    "/posts/async",
    status_code=202,
    responses={
        202: {"headers": headers.LOCATION},
        **problems(*REFUSALS, store_unavailable("beanstalkd")),
    },
)
def enqueue(post: NewPost, username: CurrentUser, timelines: Service, response: Response) -> QueuedPost:
    """Queue a post. A worker writes it soon, under the id in the response."""
    queued = timelines.queue(username, post)
    response.headers["Location"] = f"/posts/id/{queued.id}"
    return queued


@routes.get(
    "/posts/id/{post_id}",
    dependencies=[MAY_BE_STALE],
    responses=problems(errors.post_not_found()),
    openapi_extra=TOKEN_OPTIONAL,
)
def post(post_id: Id, store: Store, reader: Reader) -> Post:
    """A post by its id."""
    return store.post(post_id, reader)


@routes.get(
    "/posts/home/{username}",
    response_model=list[Post],
    responses={
        200: {"headers": headers.LINKS},
        **problems(errors.not_yours(), errors.user_not_found("alice"), *UNAVAILABLE),
    },
)
def home(
    username: Username,
    reader: CurrentUser,
    timelines: Service,
    page: PageOfPosts,
    request: Request,
    response: Response,
    include_self: IncludeSelf = False,
) -> Any:
    """Your home timeline: the posts and reposts of the users that you follow, newest first."""
    found = timelines.home(username, reader, page, with_own=include_self)
    return linked(found, page, request, response)


@routes.get("/posts/counts", dependencies=[MAY_BE_STALE], response_model=list[PostCounts])
def counts(usernames: Usernames, timelines: Service) -> Any:
    """How many posts each of these users has written, and when the last one."""
    return timelines.counts(usernames)


@routes.get(
    "/posts/{username}",
    dependencies=[MAY_BE_STALE],
    response_model=list[Post],
    responses={200: {"headers": headers.LINKS}, **problems(errors.user_not_found("alice"), *UNAVAILABLE)},
    openapi_extra=TOKEN_OPTIONAL,
)
def by_user(
    username: Username,
    timelines: Service,
    reader: Reader,
    page: PageOfPosts,
    request: Request,
    response: Response,
    replies: Replies = True,
    reposts: Reposts = True,
    tag: OfTag = None,
    pinned: Pinned = False,
) -> Any:
    """A user's posts and reposts, newest first."""
    if pinned:
        return timelines.pinned_by_user(username, reader)
    if tag:
        found = timelines.tagged_by_user(username, tag, page, reader, with_replies=replies)
    else:
        found = timelines.by_user(username, page, reader, with_replies=replies, with_reposts=reposts)
    return linked(found, page, request, response)


@routes.get(
    "/posts",
    dependencies=[MAY_BE_STALE],
    response_model=list[Post],
    responses={200: {"headers": headers.LINKS}},
    openapi_extra=TOKEN_OPTIONAL,
)
def newest(
    store: Store,
    reader: Reader,
    page: PageOfPosts,
    request: Request,
    response: Response,
    ids: Ids = [],  # noqa: B006  it is only read
) -> Any:
    """Everybody's posts, newest first; or those with the ids given."""
    if ids:
        return store.posts(ids, reader)
    return linked(store.newest(page, reader), page, request, response)


@routes.get(
    "/tags/{tag}",
    dependencies=[MAY_BE_STALE],
    response_model=list[Post],
    responses={200: {"headers": headers.LINKS}},
    openapi_extra=TOKEN_OPTIONAL,
)
def tagged(
    tag: TagPath, store: Store, reader: Reader, page: PageOfPosts, request: Request, response: Response
) -> Any:
    """The posts with a hashtag, newest first."""
    return linked(store.tags.posts(tag, page, reader), page, request, response)


@routes.get(
    "/search/posts",
    response_model=list[Post],
    responses={200: {"headers": headers.LINKS}, **problems(*UNAVAILABLE)},
    openapi_extra=TOKEN_OPTIONAL,
)
def search(
    q: SearchText, timelines: Service, reader: Reader, page: PageOfPosts, request: Request, response: Response
) -> Any:
    """Posts with all words of `q`, newest first. Case and accents do not count.

    `"two words"` is a phrase, `or` stands between alternatives, and `-word` leaves posts out. With a token,
    so are those of users whom you mute or block, or who block you.
    """
    return linked(timelines.search(q, page, reader), page, request, response)


@routes.get(
    "/tags",
    dependencies=[MAY_BE_STALE],
    response_model=list[TagInUse],
    responses={200: {"headers": headers.LINK}},
)
def tags_in_use(
    store: Store,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: BeforeTag = None,
    seen: SeenPosts = None,
) -> Any:
    """The hashtags of the last seven days, the most used first."""
    found = store.tags.in_use(limit + 1, before, seen)
    return paginate(found, limit, attrgetter("tag"), request, response, attrgetter("posts_count"))
