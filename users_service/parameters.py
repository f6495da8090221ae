"""What the routes of the users service depend on: the store, the accounts, the token, the page of names."""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

from fastapi import Depends, Path, Query, Request, Response

from common.api.auth import CurrentUser, bearer_token
from common.api.pagination import paginate_both_ways
from common.api.routing import from_state
from common.fields import Username
from common.tokens import Claims
from users_service import errors
from users_service.models import BOB, MAX_FOLLOWEES
from users_service.service import Accounts
from users_service.store import UsersStore
from users_service.watchers import RevocationWatchers


class NamesPage(NamedTuple):
    """The page of a user's list of names that a client asks for."""

    request: Request
    response: Response
    username: str
    limit: int
    before: str | None
    after: str | None

    def of(self, read: Callable[[str, int, str | None, str | None], Sequence[str]]) -> Sequence[str]:
        """What `read` finds by username, limit, before and after; the response links to the neighbours."""
        # One more than is shown says whether there are more.
        found = read(self.username, self.limit + 1, self.before, self.after)
        return paginate_both_ways(found, self.limit, self.after, str, self.request, self.response)


async def get_names_page(
    request: Request,
    response: Response,
    username: Username,
    limit: Annotated[int, Query(ge=1, le=MAX_FOLLOWEES, description="The size of a page.")] = 20,
    before: Annotated[Username | None, Query(description="The last username of the newer page.")] = None,
    after: Annotated[Username | None, Query(description="The first username of the older page.")] = None,
) -> NamesPage:
    return NamesPage(request, response, username, limit, before, after)


async def get_claims(request: Request, user: CurrentUser) -> Claims:
    """The claims of the user's token."""
    token, tokens = bearer_token(request), request.app.state.tokens
    claims: Claims = tokens.claims(token)
    return claims


Store = Annotated[UsersStore, from_state("store")]
Service = Annotated[Accounts, from_state("accounts")]
Watchers = Annotated[RevocationWatchers, from_state("watchers")]
PageOfNames = Annotated[NamesPage, Depends(get_names_page)]
CurrentToken = Annotated[Claims, Depends(get_claims)]
OtherUser = Annotated[Username, Path(examples=[BOB["username"]])]


def require_owner(username: str, user: str) -> None:
    """Raises Forbidden unless the user is the one who is named."""
    if username != user:
        raise errors.not_yours()
