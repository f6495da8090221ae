"""HTTP for what users do with a post: repost it, bookmark it, pin it."""

from typing import Any

from fastapi import Request, Response

from common.api import headers
from common.api.auth import CurrentUser
from common.api.problems import problems
from common.api.routing import MAY_BE_STALE, router
from common.errors import store_unavailable
from common.fields import Id
from timelines_service import errors
from timelines_service.models import Post, Reposter
from timelines_service.parameters import PageOf, PageOfPosts, Store, linked

routes = router("timelines", store_unavailable("postgres"))


@routes.post(
    "/posts/id/{post_id}/repost",
    status_code=201,
    responses={
        200: {"model": Post, "description": "Reposted before"},
        201: {"headers": headers.LOCATION},
        **problems(errors.post_not_found()),
    },
)
def repost(post_id: Id, username: CurrentUser, store: Store, response: Response) -> Post:
    """Show a post to those who follow you, once. Returns the repost, with the original in it."""
    repost_id, is_new = store.reposts.add(post_id, username)
    if not is_new:
        response.status_code = 200
    response.headers["Location"] = f"/posts/id/{repost_id}"
    return store.post(repost_id, username)


@routes.delete(
    "/posts/id/{post_id}/repost",
    responses=problems(errors.post_not_found()),
)
def undo_repost(post_id: Id, username: CurrentUser, store: Store) -> Post:
    """Take your repost back, if there is one. Returns the original."""
    original, _ = store.reposts.remove(post_id, username)
    return store.post(original, username)


@routes.get(
    "/posts/id/{post_id}/reposters",
    dependencies=[MAY_BE_STALE],
    response_model=list[Reposter],
    responses={200: {"headers": headers.LINKS}, **problems(errors.post_not_found())},
)
def reposters(post_id: Id, store: Store, page: PageOfPosts, request: Request, response: Response) -> Any:
    """The users who have reposted a post, the newest repost first; pages by the reposts' ids."""
    found = store.reposts.reposters(store.original_of(post_id), page)
    return linked(found, page, request, response, lambda one: one.repost_id)


@routes.put("/posts/id/{post_id}/bookmark", status_code=204, responses=problems(errors.post_not_found()))
def bookmark(post_id: Id, username: CurrentUser, store: Store) -> None:
    """Keep a post for later. Only you see it."""
    store.bookmarks.add(post_id, username)


@routes.delete("/posts/id/{post_id}/bookmark", status_code=204, responses=problems(errors.post_not_found()))
def remove_bookmark(post_id: Id, username: CurrentUser, store: Store) -> None:
    """Remove your bookmark, if there is one."""
    store.bookmarks.remove(store.original_of(post_id), username)


@routes.get(
    "/bookmarks",
    response_model=list[Post],
    responses={200: {"headers": headers.LINKS}},
)
def bookmarks(username: CurrentUser, store: Store, page: PageOf, request: Request, response: Response) -> Any:
    """Your bookmarked posts, the newest bookmark first. Follow the links: they page by bookmarks' ids."""
    found = store.bookmarks.page(username, page)
    shown = linked(found, page, request, response, lambda one: one[0])
    return [post for _, post in shown]


@routes.put(
    "/posts/id/{post_id}/pin",
    status_code=204,
    responses=problems(errors.not_your_post(), errors.post_not_found(), errors.too_many_pins()),
)
def pin(post_id: Id, username: CurrentUser, store: Store) -> None:
    """Show one of your posts first, at most five of them."""
    store.pins.add(post_id, username)


@routes.delete("/posts/id/{post_id}/pin", status_code=204, responses=problems(errors.post_not_found()))
def remove_pin(post_id: Id, username: CurrentUser, store: Store) -> None:
    """Unpin your post, if it is pinned."""
    store.pins.remove(store.original_of(post_id), username)
