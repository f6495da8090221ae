"""HTTP for likes: read the request, call the service or the store, name the status."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Query, Request, Response

from common.api import headers
from common.api.auth import CurrentUser
from common.api.pagination import Limit, paginate
from common.api.problems import problems
from common.api.routing import router
from common.fields import Id, Username
from likes_service.models import LikedPost, LikeState, PostLikes
from likes_service.service import Likes
from likes_service.store import LikesStore

routes = router("likes")


async def get_likes(request: Request) -> Likes:
    likes: Likes = request.app.state.likes
    return likes


async def get_store(request: Request) -> LikesStore:
    store: LikesStore = request.app.state.store
    return store


Store = Annotated[LikesStore, Depends(get_store)]
Before = Annotated[Id | None, Query(description="The last post_id of the page before.")]


@routes.get(
    "/likes/popular",
    response_model=list[PostLikes],
    responses={200: {"headers": headers.LINK}, **problems(400, 422, 503)},
)
def popular(
    store: Store, request: Request, response: Response, limit: Limit = 10, before: Before = None
) -> Sequence[PostLikes]:
    """Posts by how many like them, most liked first; of equals, the newest."""
    found = store.popular(limit + 1, before)
    return paginate(found, limit, lambda post: post.post_id, request, response)


@routes.post(
    "/likes/{post_id}",
    status_code=201,
    responses={200: {"model": LikeState, "description": "Liked already"}, **problems(401, 403, 422, 503)},
)
def like(
    post_id: Id, username: CurrentUser, response: Response, likes: Annotated[Likes, Depends(get_likes)]
) -> LikeState:
    """Like a post. Liking it twice counts once; if it does not exist, the like is taken back soon."""
    liking = likes.like(post_id, username)
    if not liking.changed:
        response.status_code = 200
    return liking


@routes.delete("/likes/{post_id}", responses=problems(401, 403, 422, 503))
def unlike(post_id: Id, username: CurrentUser, store: Store) -> LikeState:
    """Take a like back. Doing it twice changes nothing."""
    return store.unlike(post_id, username)


@routes.get("/likes/{post_id}/count", responses=problems(422, 503))
def count(post_id: Id, store: Store) -> PostLikes:
    """How many like a post; nobody likes an unknown one."""
    return store.count(post_id)


@routes.get(
    "/users/{username}/likes",
    response_model=list[LikedPost],
    responses={200: {"headers": headers.LINK}, **problems(400, 422, 503)},
)
def liked_by(
    username: Username,
    store: Store,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: Before = None,
) -> Sequence[LikedPost]:
    """The posts that a user likes, newest like first."""
    found = store.liked_by(username, limit + 1, before)
    return paginate(found, limit, lambda liked: liked.post_id, request, response)
