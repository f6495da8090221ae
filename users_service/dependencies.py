"""What the routes depend on: the store, the accounts, and who is named in a path."""

from typing import Annotated

from fastapi import Depends, Path, Request

from common.fields import Username
from users_service import errors
from users_service.models import BOB
from users_service.service import Accounts
from users_service.store import UsersStore


async def get_store(request: Request) -> UsersStore:
    store: UsersStore = request.app.state.store
    return store


async def get_accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


Store = Annotated[UsersStore, Depends(get_store)]
Service = Annotated[Accounts, Depends(get_accounts)]
OtherUser = Annotated[Username, Path(examples=[BOB["username"]])]


def require_owner(username: str, user: str) -> None:
    """Raises Forbidden unless the user is the one who is named."""
    if username != user:
        raise errors.not_yours()
