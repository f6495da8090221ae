"""HTTP for who follows, blocks and mutes whom."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import Header, Response

from common.api import headers
from common.api.auth import CurrentService, CurrentUser
from common.api.batch import UNIQUE, batch
from common.api.problems import problems
from common.api.routing import MAY_BE_STALE, router
from common.errors import Problem, store_unavailable
from common.fields import Username
from users_service import errors
from users_service.models import (
    BOB,
    BlockState,
    FollowState,
    HomeSources,
    MuteState,
    NamedRelationship,
)
from users_service.parameters import OtherUser, PageOfNames, Store, require_owner
from users_service.relations import BLOCK, MUTE

routes = router("users", store_unavailable("postgres"))

Others = Annotated[Sequence[Username], batch("with", BOB["username"], min_length=None), UNIQUE]
Usernames = Annotated[Sequence[Username], batch("username", BOB["username"]), UNIQUE]
IfNoneMatch = Annotated[str | None, Header()]
CURSOR_GONE = errors.unknown_cursor("alice does not follow bob any more.")


@routes.post(
    "/users/follow/{username}",
    responses=problems(
        errors.cannot_mark_yourself("follow"),
        errors.blocked(),
        errors.user_not_found("bob"),
        errors.too_many_followees(),
    ),
)
def follow(username: OtherUser, follower: CurrentUser, store: Store) -> FollowState:
    """Follow a user. Following twice changes nothing."""
    changed = store.follow(follower, username)
    return FollowState(follower=follower, followee=username, following=True, changed=changed)


@routes.post("/users/unfollow/{username}", responses=problems(errors.user_not_found("bob")))
def unfollow(username: OtherUser, follower: CurrentUser, store: Store) -> FollowState:
    """Stop following a user."""
    changed = store.unfollow(follower, username)
    return FollowState(follower=follower, followee=username, following=False, changed=changed)


@routes.get(
    "/users/{username}/followees",
    dependencies=[MAY_BE_STALE],
    response_model=list[str],
    responses={
        200: {"headers": headers.LINKS | headers.ETAG},
        304: {"description": "Not Modified", "headers": headers.ETAG},
        **problems(CURSOR_GONE, errors.user_not_found("alice")),
    },
)
def followees(store: Store, page: PageOfNames, if_none_match: IfNoneMatch = None) -> Any:
    """The usernames that a user follows, newest follow first."""
    not_modified = _not_modified(store.followees_version(page.username), if_none_match, page.response)
    return not_modified or page.of(store.followees)


def _not_modified(version: str, if_none_match: str | None, response: Response) -> Response | None:
    """304 for a client that has this version; else None, and the response gets its ETag."""
    etag = f'"{version}"'
    if if_none_match and _matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return None


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, §13.1.2: a list of tags, weak or strong, or a star."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


@routes.get(
    "/users/{username}/followers",
    dependencies=[MAY_BE_STALE],
    responses={
        200: {"headers": headers.LINKS},
        **problems(CURSOR_GONE, errors.user_not_found("alice")),
    },
)
def followers(store: Store, page: PageOfNames) -> Sequence[str]:
    """The usernames of a user's followers, newest follow first."""
    return page.of(store.relations.followers)


@routes.get("/users/{username}/relationships", responses=problems(errors.not_yours()))
def relationships(
    username: Username, user: CurrentUser, store: Store, others: Others = ()
) -> list[NamedRelationship]:
    """What is between you and other users, in the order asked; unknown ones are left out."""
    require_owner(username, user)
    return store.relations.relationships(username, others)


def _marking(*more: Problem) -> dict[int | str, dict[str, Any]]:
    return problems(*more, errors.user_not_found("bob"), errors.token_of_unknown_user())


@routes.post(
    "/users/block/{username}",
    responses=_marking(errors.cannot_mark_yourself("block"), errors.too_many_marks("block")),
)
def block(username: OtherUser, user: CurrentUser, store: Store) -> BlockState:
    """Block a user: ends follows both ways and forbids them. Blocking twice changes nothing."""
    changed = store.relations.mark(BLOCK, user, username)
    return BlockState(blocker=user, blocked=username, blocking=True, changed=changed)


@routes.post("/users/unblock/{username}", responses=_marking())
def unblock(username: OtherUser, user: CurrentUser, store: Store) -> BlockState:
    """End a block. The follows that it ended stay ended."""
    changed = store.relations.unmark(BLOCK, user, username)
    return BlockState(blocker=user, blocked=username, blocking=False, changed=changed)


@routes.post(
    "/users/mute/{username}",
    responses=_marking(errors.cannot_mark_yourself("mute"), errors.too_many_marks("mute")),
)
def mute(username: OtherUser, user: CurrentUser, store: Store) -> MuteState:
    """Mute a user: hides them from your home timeline and notifications, and tells nobody."""
    changed = store.relations.mark(MUTE, user, username)
    return MuteState(muter=user, muted=username, muting=True, changed=changed)


@routes.post("/users/unmute/{username}", responses=_marking())
def unmute(username: OtherUser, user: CurrentUser, store: Store) -> MuteState:
    """End a mute."""
    changed = store.relations.unmark(MUTE, user, username)
    return MuteState(muter=user, muted=username, muting=False, changed=changed)


@routes.get(
    "/users/{username}/blocks",
    responses={200: {"headers": headers.LINKS}, **problems(errors.not_yours(), CURSOR_GONE)},
)
def blocks(user: CurrentUser, store: Store, page: PageOfNames) -> Sequence[str]:
    """The usernames of those whom you block, newest first."""
    require_owner(page.username, user)
    return page.of(partial(store.relations.marked, BLOCK))


@routes.get(
    "/users/{username}/mutes",
    responses={200: {"headers": headers.LINKS}, **problems(errors.not_yours(), CURSOR_GONE)},
)
def mutes(user: CurrentUser, store: Store, page: PageOfNames) -> Sequence[str]:
    """The usernames of those whom you mute, newest first."""
    require_owner(page.username, user)
    return page.of(partial(store.relations.marked, MUTE))


@routes.get(
    "/users/{username}/home-sources",
    response_model=HomeSources,
    responses=problems(errors.user_not_found("alice")),
    include_in_schema=False,
)
def home_sources(
    username: Username,
    service: CurrentService,
    store: Store,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> Any:
    """For services only: what a home timeline is made of."""
    version = store.followees_version(username)
    # Not the ETag of an instance that knows no `blocked`.
    not_modified = _not_modified(f"{version}-blocked", if_none_match, response)
    return not_modified or store.relations.home_sources(username, version)


@routes.get("/home-sources/versions", include_in_schema=False)
def home_versions(usernames: Usernames, service: CurrentService, store: Store) -> dict[str, str]:
    """For services only: which home sources have changed. Each user has one at a time."""
    return store.relations.home_versions(usernames)
