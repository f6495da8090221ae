"""JSON Web Tokens (RFC 7519), issued and verified in one place."""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from jose import JOSEError, jwt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from common.errors import Unauthorized
from common.fields import Username
from common.revocations import Revocations
from common.settings import Settings

SERVICE_PREFIX = "service:"  # no username holds a colon
SERVICE_TOKEN_MINUTES = 5
# A token of this suite has about 250 characters.
MAX_TOKEN_LENGTH = 1024
# By how much the clocks of two machines may differ.
CLOCK_SKEW_SECONDS = 60
# They take some 5 MB.
TOKEN_CACHE_SIZE = 10_000

ServiceName = Annotated[str, StringConstraints(pattern=f"^{SERVICE_PREFIX}[a-z0-9-]{{1,63}}$")]


class Header(BaseModel):
    """A token's header. One that names a key or an extension is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)

    alg: str
    typ: Literal["JWT"] = "JWT"


class Claims(BaseModel):
    """A token's claims. One with more, an issuer or an audience, comes from another system."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sub: ServiceName | Username
    iat: int
    exp: int
    jti: str
    # A user's tokens of an earlier generation are revoked. Left out when it is 0.
    gen: int = Field(0, ge=0)


class Tokens:
    """Issues tokens with one secret, and verifies those of this secret and of the previous one.

    All have one algorithm. Raises ValueError for an empty secret.
    """

    def __init__(
        self,
        secret: str,
        algorithm: str,
        expires: timedelta,
        revocations: Revocations | None = None,
        previous_secret: str | None = None,
    ) -> None:
        if not secret:
            raise ValueError("an empty secret signs nothing")
        self._secret = secret
        # Tried in this order. jose accepts several keys, though its types know of one.
        self._accepted: Any = (secret, previous_secret) if previous_secret else (secret,)
        self._algorithm = algorithm
        self.expires = expires
        self._revocations = revocations or Revocations()
        # A client sends its token with every request, and a valid signature stays valid.
        self._cached_claims = lru_cache(TOKEN_CACHE_SIZE)(self._claims)
        self._service_token = lru_cache(1)(self._sign_for_service)

    @classmethod
    def from_settings(cls, settings: Settings, revocations: Revocations | None = None) -> Self:
        expires = timedelta(minutes=settings.jwt_expires_minutes)
        return cls(settings.jwt_secret, settings.jwt_alg, expires, revocations, settings.jwt_secret_previous)

    def issue(self, username: str, generation: int = 0) -> str:
        return self._sign(username, self.expires, generation)

    def issue_for_service(self, name: str) -> str:
        """A token with which one service calls another; no user can obtain one."""
        return self._service_token(name, int(time.time() / 60))

    def _sign_for_service(self, name: str, minute: int) -> str:
        """One token for all calls of a minute."""
        return self._sign(SERVICE_PREFIX + name, timedelta(minutes=SERVICE_TOKEN_MINUTES))

    def _sign(self, subject: str, expires: timedelta, generation: int = 0) -> str:
        now = datetime.now(UTC)
        claims: dict[str, object] = {"sub": subject, "iat": now, "exp": now + expires, "jti": str(uuid4())}
        if generation:
            claims["gen"] = generation
        return jwt.encode(claims, self._secret, self._algorithm)

    def subject(self, token: str) -> str:
        """The subject of a valid token; Unauthorized for any other."""
        return self.claims(token).sub

    def claims(self, token: str) -> Claims:
        """The claims of a valid token; Unauthorized for any other."""
        claims = self.issued(token)
        if self.is_revoked(claims):
            raise invalid_token()
        return claims

    def is_revoked(self, claims: Claims) -> bool:
        """Whether the token with these claims is refused, though it has not expired."""
        return self._revocations.include(claims.sub, claims.jti, claims.gen)

    def issued(self, token: str) -> Claims:
        """The claims of a token that is valid or revoked; Unauthorized for any other."""
        try:
            claims = self._cached_claims(token)
        except (JOSEError, ValueError, TypeError, ArithmeticError, RecursionError) as exc:
            # The library's own errors, pydantic's, and what the library fails to catch.
            raise invalid_token() from exc
        if time.time() >= claims.exp:
            raise invalid_token()
        return claims

    def _claims(self, token: str) -> Claims:
        """Raises for a bad token, so that the cache holds only good ones."""
        if len(token) > MAX_TOKEN_LENGTH or not all(map(_is_canonical, token.split("."))):
            raise ValueError("not a compact JWS (RFC 7515)")
        Header.model_validate(jwt.get_unverified_header(token))
        claims = Claims.model_validate(jwt.decode(token, self._accepted, [self._algorithm]))
        if claims.iat > time.time() + CLOCK_SKEW_SECONDS:
            raise ValueError("issued in the future")
        return claims


def invalid_token() -> Unauthorized:
    return Unauthorized("invalid_token", "The token has expired, or this suite did not issue it.")


def _is_canonical(segment: str) -> bool:
    """Whether this is the canonical base64url of its bytes; decoders skip characters they do not know."""
    padded = segment + "=" * (-len(segment) % 4)
    return urlsafe_b64encode(urlsafe_b64decode(padded)).rstrip(b"=") == segment.encode()


def is_service(subject: str | None) -> bool:
    return subject is not None and subject.startswith(SERVICE_PREFIX)
