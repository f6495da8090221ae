"""Who is asking: JSON Web Tokens (RFC 7519), made and checked in one place."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal
from uuid import uuid4

from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from jose import JOSEError, jwt
from pydantic import BaseModel, ConfigDict, StringConstraints

from common.errors import Forbidden, Unauthorized
from common.fields import Username

SERVICE_PREFIX = "service:"  # no username holds a colon
SERVICE_TOKEN_MINUTES = 5
# Ours have about 250 characters.
MAX_TOKEN_LENGTH = 1024
# How far the clocks of two machines may be apart.
CLOCK_SECONDS = 60
# Some 5 MB of them.
KNOWN_TOKENS = 10_000
NOT_OURS = "The token is expired or not one of ours."

ServiceName = Annotated[str, StringConstraints(pattern=f"^{SERVICE_PREFIX}[a-z0-9-]{{1,63}}$")]

# For a route that answers everybody, and the token's subject more: `openapi_extra=TOKEN_OPTIONAL`.
TOKEN_OPTIONAL: dict[str, object] = {"security": [{}]}


class Header(BaseModel):
    """The header of our tokens: no key of its own, no extension that would have to be understood."""

    model_config = ConfigDict(extra="forbid", strict=True)

    alg: str
    typ: Literal["JWT"] = "JWT"


class Claims(BaseModel):
    """The claims of our tokens. What says more, an issuer or an audience, is somebody else's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sub: ServiceName | Username
    iat: int
    exp: int
    jti: str


class Tokens:
    """Issues and checks tokens with one secret and one algorithm."""

    def __init__(self, secret: str, algorithm: str, expires: timedelta) -> None:
        if not secret:
            raise ValueError("an empty secret signs nothing")
        self._secret = secret
        self._algorithm = algorithm
        self.expires = expires
        # A token comes with every request of its user, and stays as good or bad as it was until it expires.
        self._known = lru_cache(KNOWN_TOKENS)(self._claims)
        self._service_token = lru_cache(1)(self._sign_for_service)

    def issue(self, username: str) -> str:
        return self._sign(username, self.expires)

    def issue_for_service(self, name: str) -> str:
        """A token by which services know each other; no user can obtain one."""
        return self._service_token(name, int(time.time() / 60))

    def _sign_for_service(self, name: str, minute: int) -> str:
        """One for all that is asked in this minute."""
        return self._sign(SERVICE_PREFIX + name, timedelta(minutes=SERVICE_TOKEN_MINUTES))

    def _sign(self, subject: str, expires: timedelta) -> str:
        now = datetime.now(UTC)
        claims = {"sub": subject, "iat": now, "exp": now + expires, "jti": str(uuid4())}
        return jwt.encode(claims, self._secret, self._algorithm)

    def subject(self, token: str) -> str:
        """The subject of a valid token; Unauthorized for any other."""
        try:
            claims = self._known(token)
        except (JOSEError, ValueError, TypeError, ArithmeticError, RecursionError) as exc:
            # The library's own errors, pydantic's, and those of what the library is not prepared for.
            raise Unauthorized("invalid_token", NOT_OURS) from exc
        if time.time() >= claims.exp:
            raise Unauthorized("invalid_token", NOT_OURS)
        return claims.sub

    def _claims(self, token: str) -> Claims:
        """Raises for a bad token, which is not remembered."""
        if len(token) > MAX_TOKEN_LENGTH or not all(map(_is_canonical, token.split("."))):
            raise ValueError("not written as JWS (RFC 7515) wants it")
        Header.model_validate(jwt.get_unverified_header(token))
        claims = Claims.model_validate(jwt.decode(token, self._secret, [self._algorithm]))
        if claims.iat > time.time() + CLOCK_SECONDS:
            raise ValueError("issued in the future")
        return claims


def _is_canonical(segment: str) -> bool:
    """Whether this is the one way to write it in base64url; decoders pass over what they don't know."""
    padded = segment + "=" * (-len(segment) % 4)
    return urlsafe_b64encode(urlsafe_b64decode(padded)).rstrip(b"=") == segment.encode()


def is_service(subject: str | None) -> bool:
    return subject is not None and subject.startswith(SERVICE_PREFIX)


def authenticate(request: Request) -> str | None:
    """The subject of the request's bearer token; None without one, Unauthorized for a bad one."""
    if not hasattr(request.state, "subject"):
        request.state.subject = _subject(request)
    subject: str | None = request.state.subject
    return subject


def _subject(request: Request) -> str | None:
    token = bearer_token(request)
    tokens: Tokens = request.app.state.tokens
    return None if token is None else tokens.subject(token)


def bearer_token(request: Request) -> str | None:
    """What stands after `Authorization: Bearer`; Unauthorized if something else stands there."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized("invalid_token", "The Authorization header must be: Bearer <token>.")
    return token.strip()


class Bearer(SecurityBase):
    """`Authorization: Bearer` (RFC 6750) in the API document, and its subject in the code."""

    model = HTTPBearerModel(bearerFormat="JWT", description="A token from `POST /login`.")
    scheme_name = "bearer"

    async def __call__(self, request: Request) -> str | None:
        return authenticate(request)


bearer = Bearer()


async def require_subject(subject: Annotated[str | None, Security(bearer)]) -> str:
    if subject is None:
        raise Unauthorized("token_required", "Sign in first: POST /login gives a token.")
    return subject


async def require_user(subject: Annotated[str, Depends(require_subject)]) -> str:
    if is_service(subject):
        raise Forbidden("users_only", "This is for users, not for services.")
    return subject


CurrentUser = Annotated[str, Depends(require_user)]
MaybeSubject = Annotated[str | None, Security(bearer)]
