"""What the routes depend on: the store, the accounts, and who is named in a path."""

from typing import Annotated

from fastapi import Depends, Path, Request

from common.api.auth import CurrentUser, bearer_token
from common.api.routing import from_state
from common.fields import Username
from common.tokens import Claims
from users_service import errors
from users_service.models import BOB
from users_service.service import Accounts
from users_service.store import UsersStore
from users_service.watchers import RevocationWatchers


async def get_claims(request: Request, user: CurrentUser) -> Claims:
    """The claims of the user's token."""
    token, tokens = bearer_token(request), request.app.state.tokens
    claims: Claims = tokens.claims(token)
    return claims


Store = Annotated[UsersStore, from_state("store")]
Service = Annotated[Accounts, from_state("accounts")]
Watchers = Annotated[RevocationWatchers, from_state("watchers")]
CurrentToken = Annotated[Claims, Depends(get_claims)]
OtherUser = Annotated[Username, Path(examples=[BOB["username"]])]


def require_owner(username: str, user: str) -> None:
    """Raises Forbidden unless the user is the one who is named."""
    if username != user:
        raise errors.not_yours()
