"""JSON Web Tokens (RFC 7519), made and checked in one place."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Literal, Self
from uuid import uuid4

from jose import JOSEError, jwt
from pydantic import BaseModel, ConfigDict, StringConstraints

from common.errors import Unauthorized
from common.fields import Username
from common.settings import Settings

SERVICE_PREFIX = "service:"  # no username holds a colon
SERVICE_TOKEN_MINUTES = 5
# Ours have about 250 characters.
MAX_TOKEN_LENGTH = 1024
# How far the clocks of two machines may be apart.
CLOCK_SKEW_SECONDS = 60
# Some 5 MB of them.
TOKEN_CACHE_SIZE = 10_000
INVALID_TOKEN = "The token is expired or not one of ours."  # noqa: S105  what is said of one

ServiceName = Annotated[str, StringConstraints(pattern=f"^{SERVICE_PREFIX}[a-z0-9-]{{1,63}}$")]


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
        self._cached_claims = lru_cache(TOKEN_CACHE_SIZE)(self._claims)
        self._service_token = lru_cache(1)(self._sign_for_service)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(settings.jwt_secret, settings.jwt_alg, timedelta(minutes=settings.jwt_expires_minutes))

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
            claims = self._cached_claims(token)
        except (JOSEError, ValueError, TypeError, ArithmeticError, RecursionError) as exc:
            # The library's own errors, pydantic's, and those of what the library is not prepared for.
            raise Unauthorized("invalid_token", INVALID_TOKEN) from exc
        if time.time() >= claims.exp:
            raise Unauthorized("invalid_token", INVALID_TOKEN)
        return claims.sub

    def _claims(self, token: str) -> Claims:
        """Raises for a bad token, which is not remembered."""
        if len(token) > MAX_TOKEN_LENGTH or not all(map(_is_canonical, token.split("."))):
            raise ValueError("not written as JWS (RFC 7515) wants it")
        Header.model_validate(jwt.get_unverified_header(token))
        claims = Claims.model_validate(jwt.decode(token, self._secret, [self._algorithm]))
        if claims.iat > time.time() + CLOCK_SKEW_SECONDS:
            raise ValueError("issued in the future")
        return claims


def _is_canonical(segment: str) -> bool:
    """Whether this is the one way to write it in base64url; decoders pass over what they don't know."""
    padded = segment + "=" * (-len(segment) % 4)
    return urlsafe_b64encode(urlsafe_b64decode(padded)).rstrip(b"=") == segment.encode()


def is_service(subject: str | None) -> bool:
    return subject is not None and subject.startswith(SERVICE_PREFIX)
