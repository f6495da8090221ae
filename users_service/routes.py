"""HTTP for users: read the request, call the service or the store, name the status."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Body, Depends, Query, Request, Response
from pydantic import AfterValidator, ValidationError

from common.api import headers
from common.api.auth import (
    TOKEN_OPTIONAL,
    CurrentService,
    CurrentUser,
    IssuedToken,
    OptionalSubject,
    token_required,
)
from common.api.batch import batch
from common.api.pagination import SEEN, Limit, paginate
from common.api.problems import malformed, problems
from common.api.routing import MAY_BE_STALE, body_too_large, media_type, router
from common.errors import Unprocessable, store_unavailable
from common.fields import Id, Username, WholeNumber
from common.revocations import RevocationChanges
from common.tokens import invalid_token, is_service
from common.words import MAX_WORD_LENGTH, one_word
from users_service import errors
from users_service.models import (
    ALICE,
    BOB,
    AccessToken,
    Credentials,
    Deletion,
    DeletionRequest,
    NewPassword,
    NewUser,
    OwnProfile,
    Profile,
    ProfileChanges,
    ProfileForOther,
    is_name,
    name_as_password,
)
from users_service.parameters import CurrentToken, Service, Store, Watchers, require_owner

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
MAX_WAIT_SECONDS = 30
NO_CREDENTIALS = malformed([{"loc": ("body", "username"), "type": "missing", "msg": "Field required"}])


def name_as_new_password() -> Unprocessable:
    error = name_as_password()
    return malformed([{"loc": ("body", "new_password"), "type": error.type, "msg": error.message()}])


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


NewUserBody = Annotated[NewUser, Body(openapi_examples={"alice": {"value": ALICE}, "bob": {"value": BOB}})]
Word = Annotated[str | None, Query(max_length=MAX_WORD_LENGTH, description=SEEN), AfterValidator(one_word)]
SearchText = Annotated[str, Query(max_length=100, examples=["ali"])]
Usernames = Annotated[Sequence[Username], batch("username", ALICE["username"], min_length=None)]
Ids = Annotated[Sequence[Id], batch("id", min_length=None)]


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
    dependencies=[MAY_BE_STALE],
    response_model=OwnProfile | ProfileForOther | Profile,
    responses=problems(errors.user_not_found("alice")),
    openapi_extra=TOKEN_OPTIONAL,
)
def profile(username: Username, store: Store, subject: OptionalSubject) -> Profile:
    """A user's profile; only its owner sees the e-mail address.

    With a token of another user, it says what is between the two.
    """
    if subject is None:
        return store.public_profile(username)
    if subject == username or is_service(subject):
        return store.profile(username)
    return store.profile_for_other(username, subject)


@routes.get("/users", dependencies=[MAY_BE_STALE])
def profiles(store: Store, usernames: Usernames = (), ids: Ids = ()) -> list[Profile]:
    """Profiles of several users, by names and then by ids, in the order asked; unknown ones are left out."""
    return store.profiles(usernames, ids)


@routes.get(
    "/search/users",
    dependencies=[MAY_BE_STALE],
    responses={200: {"headers": headers.LINK}, **problems(errors.unknown_cursor("alice is not found."))},
    openapi_extra=TOKEN_OPTIONAL,
)
def search_users(
    q: SearchText,
    store: Store,
    subject: OptionalSubject,
    request: Request,
    response: Response,
    limit: Limit = 20,
    before: Annotated[Username | None, Query(description="The last username of the previous page.")] = None,
    seen: Word = None,
) -> list[Profile]:
    """Users who have, for each word of `q`, a word in their name or display name that begins so.

    Case and accents do not count. With a token, users who block you, or whom you block, are left out.
    """
    found = store.search.users(q, subject, limit + 1, before, seen)
    shown = paginate(found, limit, attrgetter("username"), request, response, attrgetter("word"))
    return store.profiles([one.username for one in shown], [])


@routes.patch(
    "/users/{username}",
    responses=problems(errors.not_yours(), errors.user_not_found("alice"), errors.email_taken()),
)
def change_profile(
    username: Username, changes: ProfileChanges, user: CurrentUser, store: Store
) -> OwnProfile:
    """Change your profile, by a merge patch (RFC 7396): null makes a field what it was in the beginning."""
    require_owner(username, user)
    return store.change(username, changes)


@routes.put(
    "/users/{username}/password",
    status_code=204,
    responses=problems(errors.not_yours(), errors.wrong_password(), name_as_new_password(), errors.busy()),
)
async def change_password(
    username: Username, passwords: NewPassword, user: CurrentUser, accounts: Service
) -> None:
    """Change your password. Every token issued before is refused from then on: sign in again."""
    require_owner(username, user)
    if is_name(passwords.new_password, username):
        raise name_as_new_password()
    await accounts.change_password(username, passwords.current_password, passwords.new_password)


@routes.post(
    "/users/{username}/deletion",
    status_code=202,
    responses={
        202: {"headers": headers.LOCATION},
        **problems(errors.not_yours(), errors.wrong_password(), errors.busy()),
    },
)
async def delete_account(
    username: Username,
    request: DeletionRequest,
    user: CurrentUser,
    token: CurrentToken,
    response: Response,
    accounts: Service,
) -> Deletion:
    """Delete your account for good. Its name is never given again; what it leaves is deleted soon after."""
    require_owner(username, user)
    begun = await accounts.delete(username, request.password, token)
    response.headers["Location"] = f"/users/{username}/deletion"
    return begun


@routes.get(
    "/users/{username}/deletion",
    responses=problems(
        token_required(), invalid_token(), errors.not_yours(), errors.deletion_not_found("alice")
    ),
)
async def deletion(username: Username, token: IssuedToken, accounts: Service) -> Deletion:
    """How far the deletion of your account is, for the token by which you requested it."""
    return await accounts.deletion(username, token)


@routes.post("/logout", status_code=204)
async def logout(token: CurrentToken, accounts: Service) -> None:
    """Sign out: this token is refused from then on."""
    await accounts.sign_out(token)


@routes.get("/revocations", include_in_schema=False)
async def revocations(
    service: CurrentService,
    watchers: Watchers,
    after: Annotated[WholeNumber, Query(ge=0)] = 0,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = 0,
) -> RevocationChanges:
    """For services only: what was revoked after a position, as soon as there is something."""
    return await watchers.changes(after, wait)
