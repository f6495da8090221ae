"""What the routes of the users service depend on: the store, the accounts, the token, the page of names."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Annotated, NamedTuple

from fastapi import Depends, Path, Query, Request, Response

from common.api.auth import CurrentUser, bearer_token
from common.api.pagination import SEEN, paginate_both_ways
from common.api.routing import from_state
from common.fields import Username, WholeNumber
from common.tokens import Claims
from users_service import errors
from users_service.models import BOB, MAX_FOLLOWEES
from users_service.relations import Listed, Page
from users_service.seal import SEALED, Seal
from users_service.service import Accounts
from users_service.store import UsersStore
from users_service.watchers import RevocationWatchers


class NamesPage(NamedTuple):
    """The page of a user's list of names that a client asks for."""

    request: Request
    response: Response
    username: str
    page: Page

    def of(self, read: Callable[[str, Page], Sequence[Listed]]) -> Sequence[str]:
        """The names that `read` finds; the response links to the neighbouring pages."""
        # One more than is shown says whether there are more.
        found = read(self.username, self.page._replace(limit=self.page.limit + 1))
        shown = paginate_both_ways(
            found,
            self.page.limit,
            self.page.after,
            attrgetter("name"),
            self.request,
            self.response,
            self._seen,
        )
        return [one.name for one in shown]

    def _seen(self, one: Listed) -> str:
        return _seal(self.request).close(one.position, _place(self.request, one.name))


async def get_names_page(
    request: Request,
    response: Response,
    username: Username,
    limit: Annotated[WholeNumber, Query(ge=1, le=MAX_FOLLOWEES, description="The size of a page.")] = 20,
    before: Annotated[Username | None, Query(description="The last username of the newer page.")] = None,
    after: Annotated[Username | None, Query(description="The first username of the older page.")] = None,
    seen: Annotated[str | None, Query(pattern=SEALED, description=SEEN)] = None,
) -> NamesPage:
    page = Page(limit, before, after)
    if seen and page.cursor:
        page = page._replace(position=_seal(request).open(seen, _place(request, page.cursor)))
    return NamesPage(request, response, username, page)


def _seal(request: Request) -> Seal:
    seal: Seal = request.app.state.seal
    return seal


def _place(request: Request, name: str) -> str:
    """A name in the list of this path."""
    return f"{request.scope['path'].lower()} {name}"


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
