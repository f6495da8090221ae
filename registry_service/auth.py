"""Writing takes the registry's own token or, where it has none, a client on the same machine."""

import hmac
import re

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from common.api.auth import bearer_token
from common.settings import is_loopback
from registry_service import errors

# The origin (RFC 6454) that a browser sends for the Swagger page of this machine.
LOCAL_ORIGIN = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


class RegistryToken(SecurityBase):
    """`Authorization: Bearer` with the registry's token, which is not a user's and no JWT."""

    model = HTTPBearerModel(description="The registry's `REGISTRY_TOKEN`, if it has one. Not a user's token.")
    scheme_name = "registry_token"

    async def __call__(self, request: Request) -> None:
        accepted: list[str] = request.app.state.registry_tokens
        if not accepted:
            _require_this_machine(request)
            return
        token = bearer_token(request)
        if token is None:
            raise errors.token_required()
        # Headers are bytes, which the framework has read as Latin-1.
        given = token.encode("latin-1")
        if not any(hmac.compare_digest(given, expected.encode()) for expected in accepted):
            raise errors.invalid_token()


def _require_this_machine(request: Request) -> None:
    is_here = request.client is not None and is_loopback(request.client.host)
    # A page from anywhere runs on its reader's machine, and with DNS rebinding it is same-origin with us.
    origin = request.headers.get("origin")
    if not is_here or (origin is not None and not LOCAL_ORIGIN.fullmatch(origin)):
        raise errors.local_only()


registry_token = RegistryToken()
