"""Who may write: whoever knows the registry's own token; if it has none, whoever is on its machine."""

import hmac

from fastapi import Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from common.bearer import bearer_token
from common.errors import Unauthorized
from common.settings import is_loopback


class RegistryToken(SecurityBase):
    """`Authorization: Bearer` with the registry's token, which is not a user's and no JWT."""

    model = HTTPBearerModel(description="The registry's `REGISTRY_TOKEN`, if it has one. Not a user's token.")
    scheme_name = "registry_token"

    async def __call__(self, request: Request) -> None:
        expected: str = request.app.state.registry_token
        if not expected:
            _require_this_machine(request)
            return
        token = bearer_token(request)
        if token is None:
            raise Unauthorized("token_required", "This registry wants its REGISTRY_TOKEN as a bearer token.")
        # Headers are bytes, which the framework has read as Latin-1.
        if not hmac.compare_digest(token.encode("latin-1"), expected.encode()):
            raise Unauthorized("invalid_token", "This is not this registry's REGISTRY_TOKEN.")


def _require_this_machine(request: Request) -> None:
    if request.client is None or not is_loopback(request.client.host):
        detail = "This registry has no REGISTRY_TOKEN: only its own machine may write."
        raise Unauthorized("token_required", detail)


registry_token = RegistryToken()
