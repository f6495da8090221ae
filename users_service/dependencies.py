"""What the routes depend on: the store, the accounts, and who is named in a path."""

from typing import Annotated

from fastapi import Depends, Path, Request

from common.api.auth import CurrentUser, bearer_token
from common.fields import Username
from common.tokens import Claims
from users_service import errors
from users_service.models import BOB
from users_service.service import Accounts
from users_service.store import UsersStore
from users_service.watchers import RevocationWatchers


async def get_store(request: Request) -> UsersStore:
    store: UsersStore = request.app.state.store
    return store


async def get_accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


async def get_watchers(request: Request) -> RevocationWatchers:
    watchers: RevocationWatchers = request.app.state.watchers
    return watchers


async def get_claims(request: Request, user: CurrentUser) -> Claims:
    """The claims of the user's token."""
    token, tokens = bearer_token(request), request.app.state.tokens
    claims: Claims = tokens.claims(token)
    return claims


Store = Annotated[UsersStore, Depends(get_store)]
Service = Annotated[Accounts, Depends(get_accounts)]
Watchers = Annotated[RevocationWatchers, Depends(get_watchers)]
CurrentToken = Annotated[Claims, Depends(get_claims)]
OtherUser = Annotated[Username, Path(examples=[BOB["username"]])]


def require_owner(username: str, user: str) -> None:
    """Raises Forbidden unless the user is the one who is named."""
    if username != user:
        raise errors.not_yours()
