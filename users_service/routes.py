"""HTTP for users: read the request, call the service or the store, name the status."""

from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from common.api import headers
from common.api.auth import TOKEN_OPTIONAL, CurrentUser, OptionalSubject
from common.api.pagination import paginate
from common.api.problems import problems
from common.api.routing import media_type, router
from common.errors import UnsupportedMediaType
from common.fields import Username
from common.tokens import is_service
from users_service.models import (
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

routes = router("users")

FORM = "application/x-www-form-urlencoded"

# A form may carry what the password grant of RFC 6749 (§4.3.2) knows besides; Swagger's sign-in does.
GRANT_FIELDS = {"grant_type", "scope", "client_id", "client_secret"}

CREDENTIALS_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": Credentials.model_json_schema()} for kind in ("application/json", FORM)},
    }
}


async def get_store(request: Request) -> UsersStore:
    store: UsersStore = request.app.state.store
    return store


async def get_accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


async def read_credentials(request: Request) -> Credentials:
    """The body's name and password, be it JSON or a form."""
    kind, body = media_type(request), await request.body()
    try:
        if kind == "application/json" or not (kind or body):
            return Credentials.model_validate_json(body)
        if kind == FORM:
            fields = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
            return Credentials.model_validate({k: v for k, v in fields.items() if k not in GRANT_FIELDS})
    except ValidationError as exc:
        errors = [error | {"loc": ("body", *error["loc"])} for error in exc.errors()]
        raise RequestValidationError(errors) from exc
    raise UnsupportedMediaType("json_or_form_only", f"Send application/json or {FORM}.")


Store = Annotated[UsersStore, Depends(get_store)]
Service = Annotated[Accounts, Depends(get_accounts)]
FolloweesLimit = Annotated[int, Query(ge=1, le=MAX_FOLLOWEES, description="How many at most.")]


@routes.post(
    "/register",
    status_code=201,
    responses={201: {"headers": headers.LOCATION}, **problems(409, 413, 415, 422, 503)},
)
async def register(user: NewUser, response: Response, accounts: Service) -> OwnProfile:
    """Register a new user."""
    profile = await accounts.register(user)
    response.headers["Location"] = f"/users/{profile.username}"
    return profile


@routes.post(
    "/login",
    responses={200: {"headers": headers.NO_STORE}, **problems(401, 413, 415, 422, 503)},
    openapi_extra=CREDENTIALS_BODY,
)
async def login(
    credentials: Annotated[Credentials, Depends(read_credentials)], response: Response, accounts: Service
) -> AccessToken:
    """Exchange name and password, as JSON or as a form, for an access token."""
    response.headers["Cache-Control"] = "no-store"
    return await accounts.sign_in(credentials)


@routes.get(
    "/users/{username}",
    response_model=OwnProfile | Profile,
    responses=problems(401, 404, 422, 503),
    openapi_extra=TOKEN_OPTIONAL,
)
def profile(username: Username, store: Store, subject: OptionalSubject) -> Profile:
    """A user's profile; the e-mail address only for its owner."""
    found = store.profile(username)
    if subject == username or is_service(subject):
        return found
    return Profile(**found.model_dump(exclude={"email"}))


@routes.post("/users/follow/{username}", responses=problems(400, 401, 403, 404, 409, 422, 503))
def follow(username: Username, follower: CurrentUser, store: Store) -> FollowState:
    """Follow a user. Following twice changes nothing."""
    changed = store.follow(follower, username)
    return FollowState(follower=follower, followee=username, following=True, changed=changed)


@routes.post("/users/unfollow/{username}", responses=problems(401, 403, 404, 422, 503))
def unfollow(username: Username, follower: CurrentUser, store: Store) -> FollowState:
    """Stop following a user."""
    changed = store.unfollow(follower, username)
    return FollowState(follower=follower, followee=username, following=False, changed=changed)


@routes.get(
    "/users/{username}/followees",
    response_model=list[str],
    responses={
        200: {"headers": headers.LINK | headers.ETAG},
        304: {"description": "Not Modified", "headers": headers.ETAG},
        **problems(400, 404, 422, 503),
    },
)
def followees(
    username: Username,
    store: Store,
    request: Request,
    response: Response,
    limit: FolloweesLimit = 20,
    before: Annotated[Username | None, Query(description="The last name of the page before.")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Any:
    """The names of those whom a user follows, newest follow first."""
    etag = f'"{store.followees_version(username)}"'
    response.headers["ETag"] = etag
    if if_none_match and _matches(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return paginate(store.followees(username, limit + 1, before), limit, str, request, response)


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110, §13.1.2: a list of tags, weak or strong, or a star."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags
