"""The bearer token of a request, and the parameters by which routes depend on it."""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from common.errors import Forbidden, Unauthorized
from common.tokens import Claims, Tokens, invalid_token, is_service

# For a route that needs no token, but responds with more to one: `openapi_extra=TOKEN_OPTIONAL`.
TOKEN_OPTIONAL: dict[str, object] = {"security": [{}]}


def authenticate(request: Request) -> str | None:
    """The subject of the request's bearer token; None without a token. Raises Unauthorized for a bad one."""
    if not hasattr(request.state, "subject"):
        request.state.subject = _subject(request)
    subject: str | None = request.state.subject
    return subject


def _subject(request: Request) -> str | None:
    token = bearer_token(request)
    tokens: Tokens = request.app.state.tokens
    return None if token is None else tokens.subject(token)


def bearer_token(request: Request) -> str | None:
    """The token in `Authorization: Bearer`; None without that header. Raises Unauthorized."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("invalid_token", "The Authorization header must be: Bearer <token>.")
    return token.strip()


class Bearer(SecurityBase):
    """`Authorization: Bearer` (RFC 6750) in the API document, and its subject in the code."""

    model = HTTPBearerModel(bearerFormat="JWT", description="A user's access token.")
    scheme_name = "bearer"

    async def __call__(self, request: Request) -> str | None:
        return authenticate(request)


bearer = Bearer()


class IssuedBearer(SecurityBase):
    """As Bearer, but a token may be revoked: the route decides what it is good for. It is required."""

    model = Bearer.model
    scheme_name = Bearer.scheme_name

    async def __call__(self, request: Request) -> Claims:
        token, tokens = bearer_token(request), request.app.state.tokens
        if token is None:
            raise token_required()
        claims: Claims = tokens.issued(token)
        return claims


issued_bearer = IssuedBearer()


def token_required() -> Unauthorized:
    return Unauthorized("token_required", "Sign in first: this needs an access token.")


def users_only() -> Forbidden:
    return Forbidden("users_only", "This is for users, not for services.")


async def require_subject(subject: Annotated[str | None, Security(bearer)]) -> str:
    if subject is None:
        raise token_required()
    return subject


async def require_user(subject: Annotated[str, Depends(require_subject)]) -> str:
    if is_service(subject):
        raise users_only()
    return subject


def services_only() -> Forbidden:
    return Forbidden("services_only", "This is for services, not for users.")


async def require_service(subject: Annotated[str, Depends(require_subject)]) -> str:
    if not is_service(subject):
        raise services_only()
    return subject


CurrentService = Annotated[str, Depends(require_service)]
CurrentUser = Annotated[str, Depends(require_user)]
OptionalSubject = Annotated[str | None, Security(bearer)]
IssuedToken = Annotated[Claims, Security(issued_bearer)]

# How these dependencies refuse a request.
REFUSALS = {
    bearer: invalid_token,
    require_subject: token_required,
    require_user: users_only,
    require_service: services_only,
}
