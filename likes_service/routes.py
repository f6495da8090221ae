"""HTTP for likes: read the request, call the service or the store, name the status."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated

from fastapi import Query, Request, Response

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.batch import UNIQUE, batch
from common.api.pagination import SEEN, Limit, paginate, paginate_both_ways
from common.api.problems import problems
from common.api.routing import from_state, router
from common.errors import store_unavailable
from common.fields import EXAMPLE_ID, Id, Username
from likes_service import errors
from likes_service.models import LikedPost, Liker, LikeState, PostLikes, PostLikesWithOwn
from likes_service.service import Likes
from likes_service.store import LikesStore, microseconds

routes = router("likes", store_unavailable("redis"))


Service = Annotated[Likes, from_state("likes")]
Store = Annotated[LikesStore, from_state("store")]
Before = Annotated[Id | None, Query(description="The last post_id of the previous page.")]
After = Annotated[Id | None, Query(description="The first post_id of a page, for newer ones.")]
BeforeUser = Annotated[Username | None, Query(description="The last username of the previous page.")]
AfterUser = Annotated[Username | None, Query(description="The first username of a page, for newer ones.")]
# As many digits as a double has: Redis' scores are doubles.
Seen = Annotated[str | None, Query(pattern="^[0-9]{1,16}$", description=SEEN)]
PostIds = Annotated[list[Id], batch("post_id"), UNIQUE]


@routes.get("/likes", response_model=list[PostLikesWithOwn | PostLikes], openapi_extra=TOKEN_OPTIONAL)
def counts(post_ids: PostIds, store: Store, subject: OptionalSubject) -> Sequence[PostLikes]:
    """How many users like each of these posts and, with a token, whether you do."""
    found = store.counts(post_ids, subject)
    if subject is None:
        return [PostLikes(post_id=likes.post_id, count=likes.count) for likes in found]
    return found


@routes.get(
    "/likes/popular",
    response_model=list[PostLikes],
    responses={200: {"headers": headers.LINK}, **problems(errors.unknown_cursor(EXAMPLE_ID))},
)
def popular(
    store: Store,
    request: Request,
    response: Response,
    limit: Limit = 10,
    before: Before = None,
    seen: Seen = None,
) -> Sequence[PostLikes]:
    """Posts by their number of likes, most liked first; ties newest first."""
    found = store.popular(limit + 1, before, seen)
    return paginate(found, limit, attrgetter("post_id"), request, response, attrgetter("count"))


@routes.post(
    "/likes/{post_id}",
    status_code=201,
    responses={200: {"model": LikeState, "description": "The user liked it before"}},
)
def like(post_id: Id, username: CurrentUser, response: Response, likes: Service) -> LikeState:
    """Like a post. Liking it twice counts once.

    The post is looked up afterwards. A like of a post that does not exist is 201, too, is taken back soon,
    and the user gets a mail about it.
    """
    liking = likes.like(post_id, username)
    if not liking.changed:
        response.status_code = 200
    return liking


@routes.delete("/likes/{post_id}")
def unlike(post_id: Id, username: CurrentUser, likes: Service) -> LikeState:
    """Remove a like. Removing it twice changes nothing."""
    return likes.unlike(post_id, username)


@routes.get("/likes/{post_id}/count")
def count(post_id: Id, store: Store) -> PostLikes:
    """How many users like a post; 0 for one that does not exist."""
    return store.count(post_id)


@routes.get(
    "/likes/{post_id}/users",
    response_model=list[Liker],
    responses={200: {"headers": headers.LINKS}, **problems(errors.unknown_cursor("alice"))},
)
def likers(
    post_id: Id,
    store: Store,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: BeforeUser = None,
    after: AfterUser = None,
    seen: Seen = None,
) -> Sequence[Liker]:
    """The users who like a post, newest like first."""
    found = store.likers(post_id, limit + 1, before, after, seen)
    return paginate_both_ways(found, limit, after, attrgetter("username"), request, response, _liked_at)


@routes.get(
    "/users/{username}/likes",
    response_model=list[LikedPost],
    responses={200: {"headers": headers.LINKS}, **problems(errors.unknown_cursor(EXAMPLE_ID))},
)
def liked_by(
    username: Username,
    store: Store,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: Before = None,
    after: After = None,
    seen: Seen = None,
) -> Sequence[LikedPost]:
    """The posts that a user likes, newest like first. Empty for a user who does not exist."""
    found = store.liked_by(username, limit + 1, before, after, seen)
    return paginate_both_ways(found, limit, after, attrgetter("post_id"), request, response, _liked_at)


def _liked_at(like: Liker | LikedPost) -> int:
    return microseconds(like.liked_at)
