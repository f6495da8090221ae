"""HTTP for users: read the request, call the service or the store, name the status."""

from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Body, Depends, Header, Path, Query, Request, Response
from pydantic import ValidationError

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.pagination import paginate
from common.api.problems import malformed, problems
from common.api.routing import body_too_large, media_type, router
from common.errors import store_unavailable
from common.fields import Username
from common.tokens import is_service
from users_service import errors
from users_service.models import (
    ALICE,
    BOB,
    MAX_FOLLOWEES,
    AccessToken,
    Credentials,
    FollowState,
    NewUser,
    OwnProfile,
    Profile,
)
from users_service.service import Accounts
from users_service.store import UsersStore

routes = router("users", store_unavailable("postgres"))

FORM = "application/x-www-form-urlencoded"

# Swagger's Authorize sends a form with the other fields of the password grant (RFC 6749, §4.3.2).
GRANT_FIELDS = {"grant_type", "scope", "client_id", "client_secret"}

# Generated clients cannot choose between two media types: this one documents JSON alone.
CREDENTIALS_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": Credentials.model_json_schema()}},
    }
}
NO_CREDENTIALS = malformed([{"loc": ("body", "username"), "type": "missing", "msg": "Field required"}])


async def get_store(request: Request) -> UsersStore:
    store: UsersStore = request.app.state.store
    return store


async def get_accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


async def read_credentials(request: Request) -> Credentials:
    """The username and password in a body of JSON or of a form."""
    kind, body = media_type(request), await request.body()
    try:
        if kind == "application/json" or not (kind or body):
            return Credentials.model_validate_json(body)
        if kind == FORM:
            fields = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
            return Credentials.model_validate({k: v for k, v in fields.items() if k not in GRANT_FIELDS})
    except ValidationError as exc:
        raise malformed([error | {"loc": ("body", *error["loc"])} for error in exc.errors()]) from exc
    raise errors.json_or_form_only()


Store = Annotated[UsersStore, Depends(get_store)]
Service = Annotated[Accounts, Depends(get_accounts)]
NewUserBody = Annotated[NewUser, Body(openapi_examples={"alice": {"value": ALICE}, "bob": {"value": BOB}})]
Followee = Annotated[Username, Path(examples=[BOB["username"]])]
FolloweesLimit = Annotated[int, Query(ge=1, le=MAX_FOLLOWEES, description="The size of a page.")]


@routes.post(
    "/register",
    status_code=201,
    responses={
        201: {"headers": headers.LOCATION},
        **problems(
            errors.username_taken("alice"), errors.email_taken(), errors.busy(), store_unavailable("postgres")
        ),
    },
)
async def register(user: NewUserBody, response: Response, accounts: Service) -> OwnProfile:
    """Register a new user."""
    profile = await accounts.register(user)
    response.headers["Location"] = f"/users/{profile.username}"
    return profile


@routes.post(
    "/login",
    responses={
        200: {"headers": headers.NO_STORE},
        **problems(
            errors.wrong_credentials(),
            body_too_large(),
            errors.json_or_form_only(),
            NO_CREDENTIALS,
            errors.busy(),
            store_unavailable("postgres"),
        ),
    },
    openapi_extra=CREDENTIALS_BODY,
)
async def login(
    credentials: Annotated[Credentials, Depends(read_credentials)], response: Response, accounts: Service
) -> AccessToken:
    """Exchange a username and password for an access token.

    Besides JSON, it accepts the form of the password grant (RFC 6749, §4.3.2), which Authorize sends.
    """
    response.headers["Cache-Control"] = "no-store"
    return await accounts.sign_in(credentials)


@routes.get(
    "/users/{username}",
    response_model=OwnProfile | Profile,
    responses=problems(errors.user_not_found("alice")),
    openapi_extra=TOKEN_OPTIONAL,
)
def profile(username: Username, store: Store, subject: OptionalSubject) -> Profile:
    """A user's profile; only its owner sees the e-mail address."""
    found = store.profile(username)
    if subject == username or is_service(subject):
        return found
    return Profile(**found.model_dump(exclude={"email"}))


@routes.post(
    "/users/follow/{username}",
    responses=problems(
        errors.cannot_follow_yourself(),
        errors.user_not_found("bob"),
        errors.too_many_followees(),
    ),
)
def follow(username: Followee, follower: CurrentUser, store: Store) -> FollowState:
    """Follow a user. Following twice changes nothing."""
    changed = store.follow(follower, username)
    return FollowState(follower=follower, followee=username, following=True, changed=changed)


@routes.post("/users/unfollow/{username}", responses=problems(errors.user_not_found("bob")))
def unfollow(username: Followee, follower: CurrentUser, store: Store) -> FollowState:
    """Stop following a user."""
    changed = store.unfollow(follower, username)
    return FollowState(follower=follower, followee=username, following=False, changed=changed)


@routes.get(
    "/users/{username}/followees",
    response_model=list[str],
    responses={
        200: {"headers": headers.LINK | headers.ETAG},
        304: {"description": "Not Modified", "headers": headers.ETAG},
        **problems(errors.unknown_cursor("alice", "bob"), errors.user_not_found("alice")),
    },
)
def followees(
    username: Username,
    store: Store,
    request: Request,
    response: Response,
    limit: FolloweesLimit = 20,
    before: Annotated[Username | None, Query(description="The last username of the previous page.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """The usernames that a user follows, newest follow first."""
    etag = f'"{store.followees_version(username)}"'
    response.headers["ETag"] = etag
    if if_none_match and _matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return paginate(store.followees(username, limit + 1, before), limit, str, request, response)


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, §13.1.2: a list of tags, weak or strong, or a star."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags
