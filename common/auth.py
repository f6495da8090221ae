"""Who is asking: JSON Web Tokens (RFC 7519), made and checked in one place."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, Request, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase
from jose import JOSEError, jwt
from pydantic import TypeAdapter, ValidationError

from common.errors import Forbidden, Unauthorized
from common.fields import Username

SERVICE_PREFIX = "service:"  # no username holds a colon
SERVICE_TOKEN_MINUTES = 5
# Some 5 MB of them.
KNOWN_TOKENS = 10_000
NOT_OURS = "The token is expired or not one of ours."

REQUIRED_CLAIMS = {
    "require_sub": True,
    "require_iat": True,
    "require_exp": True,
    "require_jti": True,
}

USERNAME: TypeAdapter[str] = TypeAdapter(Username)

# For a route that answers everybody, and the token's subject more: `openapi_extra=TOKEN_OPTIONAL`.
TOKEN_OPTIONAL: dict[str, object] = {"security": [{}]}


class Tokens:
    """Issues and checks tokens with one secret and one algorithm."""

    def __init__(self, secret: str, algorithm: str, expires: timedelta) -> None:
        if not secret:
            raise ValueError("an empty secret signs nothing")
        self._secret = secret
        self._algorithm = algorithm
        self.expires = expires
        # A token comes with every request of its user, and stays as good or bad as it was until it expires.
        self._known = lru_cache(KNOWN_TOKENS)(self._decode)
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
            subject, expires = self._known(token)
        except (JOSEError, ValidationError, RecursionError) as exc:  # the last: a header of many brackets
            raise Unauthorized("invalid_token", NOT_OURS) from exc
        if time.time() >= expires:
            raise Unauthorized("invalid_token", NOT_OURS)
        return subject

    def _decode(self, token: str) -> tuple[str, float]:
        """Subject, and when it expires; raises for a bad token, which is not remembered."""
        claims = jwt.decode(token, self._secret, [self._algorithm], options=REQUIRED_CLAIMS)
        subject: str = claims["sub"]
        # Who knows the secret can sign any name; what stands on it relies on its form.
        return subject if is_service(subject) else USERNAME.validate_python(subject), int(claims["exp"])


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
