"""Who may write: whoever knows the registry's own token."""

import hmac

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from common.bearer import bearer_token
from common.errors import Unauthorized


class RegistryToken(SecurityBase):
    """`Authorization: Bearer` with the registry's token, which is not a user's and no JWT."""

    model = HTTPBearerModel(description="The registry's `REGISTRY_TOKEN`, if it has one. Not a user's token.")
    scheme_name = "registry_token"

    async def __call__(self, request: Request) -> None:
        expected: str = request.app.state.registry_token
        if not expected:
            return
        token = bearer_token(request)
        if token is None:
            raise Unauthorized("token_required", "This registry wants its REGISTRY_TOKEN as a bearer token.")
        # Headers are bytes, which the framework has read as Latin-1.
        if not hmac.compare_digest(token.encode("latin-1"), expected.encode()):
            raise Unauthorized("invalid_token", "This is not this registry's REGISTRY_TOKEN.")


registry_token = RegistryToken()
