"""HTTP for what becomes of a post: edits, its deletion, answers."""

from typing import Annotated, Any

from fastapi import Query, Request, Response

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser
from common.api.pagination import Limit, paginate_both_ways
from common.api.problems import problems
from common.api.routing import MAY_BE_STALE, router
from common.errors import store_unavailable
from common.fields import Id, WholeNumber
from timelines_service import errors
from timelines_service.models import Context, Edit, Post, PostVersion
from timelines_service.parameters import PageOfPosts, Reader, Service, Store, linked

routes = router("timelines", store_unavailable("postgres"))

Version = Annotated[WholeNumber | None, Query(ge=1, le=2**31 - 1)]


@routes.patch(
    "/posts/id/{post_id}",
    responses=problems(errors.not_your_post(), errors.post_not_found(), errors.repost_has_no_text()),
)
def edit(post_id: Id, change: Edit, username: CurrentUser, timelines: Service, store: Store) -> Post:
    """Replace the text of your post. The earlier one stays among its versions."""
    timelines.edit(post_id, username, change.text)
    return store.post(post_id, username)


@routes.delete(
    "/posts/id/{post_id}",
    status_code=204,
    responses=problems(errors.not_your_post(), errors.post_not_found()),
)
def delete(post_id: Id, username: CurrentUser, store: Store) -> None:
    """Delete your post or repost for good. Replies stay, and say which post they answered."""
    store.deletions.delete(post_id, username)


@routes.get(
    "/posts/id/{post_id}/versions",
    dependencies=[MAY_BE_STALE],
    response_model=list[PostVersion],
    responses={200: {"headers": headers.LINKS}, **problems(errors.post_not_found())},
)
def versions(
    post_id: Id,
    store: Store,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: Version = None,
    after: Version = None,
) -> Any:
    """The earlier texts of a post, newest first."""
    original = store.original_of(post_id)
    found = store.edits.versions(original, limit + 1, before, after)
    return paginate_both_ways(found, limit, after, lambda one: one.version, request, response)


@routes.get(
    "/posts/id/{post_id}/replies",
    dependencies=[MAY_BE_STALE],
    response_model=list[Post],
    responses={200: {"headers": headers.LINKS}, **problems(errors.post_not_found())},
    openapi_extra=TOKEN_OPTIONAL,
)
def replies(
    post_id: Id, store: Store, reader: Reader, page: PageOfPosts, request: Request, response: Response
) -> Any:
    """The direct replies to a post, newest first."""
    found = store.threads.replies(store.original_of(post_id), page, reader)
    return linked(found, page, request, response)


@routes.get(
    "/posts/id/{post_id}/context",
    dependencies=[MAY_BE_STALE],
    responses=problems(errors.post_not_found()),
    openapi_extra=TOKEN_OPTIONAL,
)
def context(post_id: Id, timelines: Service, reader: Reader) -> Context:
    """The thread around a post. With a token, as much as 4,096 posts in each direction."""
    return timelines.context(post_id, reader)
