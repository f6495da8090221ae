"""JSON Web Tokens (RFC 7519), made and checked in one place."""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Self
from uuid import uuid4

from jose import JOSEError, jwt
from pydantic import TypeAdapter, ValidationError

from common.errors import Unauthorized
from common.fields import Username
from common.settings import Settings

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

    @classmethod
    def of(cls, settings: Settings) -> Self:
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
